"""Tokenisers without a vocabulary: bytes, and for token classifiers words besides."""

import re
from collections.abc import Sequence

import numpy as np

from app.engines.base import Encoded, TextOrPair
from app.engines.token_windows import TokenRow, TokenText
from app.engines.tokens import Token

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
WORD = re.compile(r"\w+|[^\w\s]")
SURE = 6.0  # the logit of the label that wins; of all others 0
BETWEEN = "\n"  # the two texts of a pair


class ByteEncoder:
    """A token is one UTF-8 byte; what is beyond the window is cut off."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens

    def encode(self, texts: Sequence[TextOrPair], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts and pairs, with a prompt before each."""
        whole = (text if isinstance(text, str) else BETWEEN.join(text) for text in texts)
        data = [to_bytes(prompt + text) for text in whole]
        return [
            Encoded(token_ids=d[: self.max_tokens], is_truncated=len(d) > self.max_tokens)
            for d in data
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token: of each byte, that of its character."""
        sizes = [len(to_bytes(character)) for character in text]
        return [(place, place + 1) for place, size in enumerate(sizes) for _ in range(size)]

    def tokens(self, text: str, *, with_special: bool) -> list[Token]:  # noqa: ARG002  # there are none
        """Show the bytes of a text, each with the character that it belongs to."""
        pairs = zip(to_bytes(text), self.offsets(text), strict=True)
        return [Token(id=byte, text=text[slice(*place)], place=place) for byte, place in pairs]


class WordEncoder(ByteEncoder):
    """Finds words too; nothing is cut off."""

    def encode(self, texts: Sequence[TextOrPair], prompt: str = "") -> Sequence[TokenText]:
        """Tokenise texts; there are no pairs of them."""
        return [words_of(prompt + text) for text in texts if isinstance(text, str)]


def to_bytes(text: str) -> bytes:
    """Return a text's tokens."""
    return text.encode("utf-8", "surrogatepass")


def words_of(text: str) -> TokenText:
    """Return a text's words and where they stand; `token_ids` are its bytes."""
    data = to_bytes(text)
    places = [match.span() for match in WORD.finditer(text)]
    return TokenText(
        token_ids=data,
        is_truncated=False,
        windows=(Encoded(token_ids=data, is_truncated=False),),
        offsets=np.array(places, dtype=np.int64).reshape(-1, 2),
        is_subword=np.zeros(len(places), dtype=np.bool_),
    )


def row_of(data: bytes, labels: Sequence[str]) -> TokenRow:
    """Return the row of a text: label 1 for a name's first word, 2 for those that follow."""
    text = data.decode("utf-8", "surrogatepass")
    item = words_of(text)
    logits = np.zeros((len(item.offsets), len(labels)), dtype=np.float32)
    was_name = False
    for place, (start, _) in enumerate(item.offsets):
        is_name = text[start].isupper()
        label = (2 if was_name else 1) if is_name else 0
        logits[place, min(label, len(labels) - 1)] = SURE
        was_name = is_name
    return TokenRow(logits, item.offsets, item.is_subword)
