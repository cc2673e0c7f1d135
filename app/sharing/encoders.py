"""Tokenisers as they cross from the engine's process, which has read the model's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol, runtime_checkable

from tokenizers import Tokenizer

from app.engines.base import Encoded, TextOrPair
from app.engines.fake_tokens import ByteEncoder, WordEncoder
from app.engines.token_windows import TokenEncoder
from app.engines.tokenizer import Padding, TextEncoder, TextRules


class Encoder(Protocol):
    """Tokenises texts; safe in any thread."""

    max_tokens: int

    def encode(self, texts: Sequence[TextOrPair], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts or pairs, with a prompt before each."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length."""
        ...


@runtime_checkable
class HasEncoder(Protocol):
    """An engine of texts whose tokeniser can be had."""

    encoder: Encoder


# By the name that crosses; the exact class counts.
NATIVE: Mapping[str, type[TextEncoder]] = {"texts": TextEncoder, "tokens": TokenEncoder}
FAKE: Mapping[str, type[ByteEncoder]] = {"bytes": ByteEncoder, "words": WordEncoder}


def write_encoder(encoder: Encoder) -> tuple[dict[str, Any], bytes] | None:
    """Return a tokeniser as JSON and bytes; None for one that isn't known here."""
    for name, fake in FAKE.items():
        if type(encoder) is fake:
            return {"kind": name, "max_tokens": encoder.max_tokens}, b""
    for name, native in NATIVE.items():
        if type(encoder) is native:
            assert isinstance(encoder, TextEncoder)  # noqa: S101  # as its class says
            head = {
                "kind": name,
                "max_tokens": encoder.max_tokens,
                "rules": asdict(encoder.rules),
            }
            return head, encoder.dump().encode()
    return None


def read_encoder(head: Mapping[str, Any], blob: bytes) -> Encoder:
    """Return the tokeniser that `write_encoder` wrote."""
    kind, max_tokens = head["kind"], head["max_tokens"]
    if kind in FAKE:
        return FAKE[kind](max_tokens)
    rules = TextRules(
        **{
            **head["rules"],
            "padding": Padding(head["rules"]["padding"]),
            "special_ids": tuple(head["rules"]["special_ids"]),
        }
    )
    return NATIVE[kind](Tokenizer.from_str(blob.decode()), rules, limit=max_tokens)
