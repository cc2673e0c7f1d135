"""Cuts a query and a text so that both fit into a window, as texts: llama.cpp takes no tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.engines.base import Pair
from app.engines.llama_cpp.places import places
from app.engines.llama_cpp.tokens import Token


class Tokenizer(Protocol):
    """What is asked of a model's tokeniser."""

    def tokens(self, text: str, *, special: bool = True) -> list[Token]:
        """Return a text's tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CutPair:
    """A pair that fits, and its tokens without those around them."""

    pair: Pair
    tokens: int
    is_truncated: bool


def cut_pair(pair: Pair, tokenizer: Tokenizer, *, room: int) -> CutPair:
    """Return a pair of no more tokens than there is room for.

    The longer of the two loses its end until both fit, as transformers' `longest_first`. A text is
    cut between two characters, so that it may lose a token more than its ids would.
    """
    first, second = (tokenizer.tokens(text, special=False) for text in pair)
    total = len(first) + len(second)
    if total <= room:
        return CutPair(pair=pair, tokens=total, is_truncated=False)
    kept = _share(len(first), len(second), room)
    ends = [
        _beginning(text, tokens, most, tokenizer)
        for text, tokens, most in zip(pair, (first, second), kept, strict=True)
    ]
    (query, some), (text, others) = ends
    return CutPair(pair=(query, text), tokens=some + others, is_truncated=True)


def _share(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens each keeps: the shorter one all, up to a half."""
    if first <= second:
        kept = min(first, room // 2)
        return kept, room - kept
    kept = min(second, room // 2)
    return room - kept, kept


def _beginning(
    text: str, tokens: Sequence[Token], most: int, tokenizer: Tokenizer
) -> tuple[str, int]:
    """Return as much of a text as has so many tokens, and how many those are."""
    if len(tokens) <= most:
        return text, len(tokens)
    ends = [end for _, end in places(text, [token.piece for token in tokens[:most]])]
    kept = most
    while kept > 0:
        beginning = text[: ends[kept - 1]]
        # A word that is cut may have other tokens than it had, and more of them.
        count = len(tokenizer.tokens(beginning, special=False))
        if count <= most:
            return beginning, count
        kept -= max(1, count - most)
    return "", 0
