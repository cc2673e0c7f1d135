"""How texts become tokens: their number is estimated first, then the engine's tokeniser runs."""

from collections.abc import Sequence
from functools import partial
from typing import cast

from app.batching.isolation import run_isolated
from app.engines.base import Embedder, Encoded, TextEngine
from app.errors import TextWithoutTokensError

# English has about 4.5 characters a token; rather too many tokens than too few.
CHARS_PER_TOKEN = 4
SPECIAL_TOKENS = 2


def estimate_tokens(text: str, prompt: str = "", *, max_tokens: int) -> int:
    """Return about how many tokens a text has; never more than the engine's window."""
    chars = len(prompt) + len(text)
    return min(chars // CHARS_PER_TOKEN + SPECIAL_TOKENS, max_tokens)


def encode_texts(
    engine: TextEngine, texts: Sequence[str], prompt: str
) -> list[Encoded | Exception]:
    """Return the tokens of each text, or the exception of one that has none or can't be read."""
    encode = partial(cast("Embedder", engine).encode, prompt=prompt) if prompt else engine.encode
    return [
        # Alone it would fail, and in a batch it would be answered with its padding.
        TextWithoutTokensError() if isinstance(e, Encoded) and e.is_empty else e
        for e in run_isolated(encode, texts)
    ]
