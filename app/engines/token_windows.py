"""Texts for models that label tokens: windows that overlap, and what they answer put together.

A text that fits is one window, with the very tokens that transformers' pipeline runs. In a longer
one neighbouring windows share a quarter of their tokens, and a token is answered by the window in
which it stands furthest from an edge: at an edge half of what it belongs to can't be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from app.engines.base import Encoded, FloatArray, TextOrPair
from app.engines.tokenizer import IntArray, TextEncoder, TextRules

SHARE = 4  # windows overlap by a part in so many
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """What a model says of the tokens of one text, without special ones.

    Args:
        logits: (tokens, labels) float32.
        offsets: (tokens, 2), where each begins and ends, in code points of the text.
        is_subword: (tokens,), whether each goes on with the word of the token before.

    """

    logits: FloatArray
    offsets: IntArray
    is_subword: BoolArray

    @property
    def size(self) -> int:
        """How many numbers it has, as of an array."""
        return self.logits.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenText(Encoded):
    """A text as a token classifier takes it; `token_ids` are those of all its windows.

    Args:
        windows: each with the special tokens around it.
        starts: of each window's first token, among the text's own ones.
        before: special tokens at the beginning of a window.
        offsets, is_subword: as of a `TokenRow`.

    """

    windows: tuple[Encoded, ...]
    starts: tuple[int, ...] = (0,)
    before: int = 0
    offsets: IntArray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    is_subword: BoolArray = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))

    @property
    def first_window(self) -> Encoded:
        """The window at the text's beginning."""
        return self.windows[0]

    def row(self, logits: Sequence[FloatArray]) -> TokenRow:
        """Return the row of this text.

        Args:
            logits: of each window, (its tokens with the special ones, labels).

        """
        cuts = window_cuts(self.starts, self._end)
        parts = [
            window[self.before + begin - start : self.before + end - start]
            for window, start, (begin, end) in zip(logits, self.starts, pairwise(cuts), strict=True)
        ]
        return TokenRow(np.concatenate(parts), self.offsets, self.is_subword)

    @property
    def _end(self) -> int:
        return len(self.offsets)


def windows_of(batch: Sequence[Encoded]) -> list[Encoded]:
    """Return the windows of all texts, one behind the other."""
    return [window for item in batch if isinstance(item, TokenText) for window in item.windows]


def rows_of(batch: Sequence[Encoded], logits: Sequence[FloatArray]) -> list[TokenRow]:
    """Return the rows of texts, given the logits of all of `windows_of`."""
    rest = iter(logits)
    texts = [item for item in batch if isinstance(item, TokenText)]
    return [text.row([next(rest) for _ in text.windows]) for text in texts]


def window_starts(tokens: int, room: int) -> tuple[int, ...]:
    """Return where windows of so much room begin in a text of so many tokens.

    The last ends with the text: a shorter one would show its tokens less of what is before them.
    """
    if tokens <= room:
        return (0,)
    step = room - room // SHARE
    return (*range(0, tokens - room, step), tokens - room)


def window_cuts(starts: Sequence[int], tokens: int) -> list[int]:
    """Return the first token that each window answers, and the end of the text.

    Of windows of the same length the one in which a token stands furthest from an edge is the one
    whose middle is nearest: what two share is cut in its middle.
    """
    if len(starts) == 1:
        return [0, tokens]
    room = tokens - starts[-1]
    middles = [(start + before + room + 1) // 2 for before, start in pairwise(starts)]
    return [0, *middles, tokens]


class TokenEncoder(TextEncoder):
    """The tokeniser of a model that labels tokens; it cuts nothing off."""

    def __init__(self, tokenizer: Tokenizer, rules: TextRules, *, limit: int | None = None) -> None:
        super().__init__(tokenizer, rules, limit=limit)
        tokenizer.no_truncation()
        # With WordPiece a token that goes on with a word is spelled otherwise than its text.
        self._marks_subwords = bool(getattr(tokenizer.model, "continuing_subword_prefix", None))

    def encode(self, texts: Sequence[TextOrPair], prompt: str = "") -> list[TokenText]:
        """Tokenise texts of any length; there are no pairs of them."""
        prompted = [prompt + cast("str", text) for text in texts]
        found = self._tokenizer.encode_batch(prompted)
        return [self._text(text, e) for text, e in zip(prompted, found, strict=True)]

    def _text(self, text: str, encoding: Encoding) -> TokenText:
        """Return a text of what the tokenizers library made of it."""
        ids, types = encoding.ids, encoding.type_ids if self.rules.has_types else []
        before, end = _own(encoding.special_tokens_mask)
        places, spelled = encoding.offsets[before:end], encoding.tokens[before:end]
        starts = window_starts(end - before, self.passage_tokens)
        windows = [
            Encoded(
                token_ids=_around(ids, before, end, start, self.passage_tokens),
                is_truncated=False,
                type_ids=_around(types, before, end, start, self.passage_tokens),
            )
            for start in starts
        ]
        return TokenText(
            token_ids=[index for window in windows for index in window.token_ids],
            is_truncated=False,
            unknown=None if self.rules.unknown_id is None else ids.count(self.rules.unknown_id),
            windows=tuple(windows),
            starts=starts,
            before=before,
            offsets=np.array(places, dtype=np.int64).reshape(-1, 2),
            is_subword=np.array(
                [
                    index != self.rules.unknown_id and self._is_subword(text, token, *place)
                    for index, token, place in zip(ids[before:end], spelled, places, strict=True)
                ],
                dtype=np.bool_,
            ),
        )

    def _is_subword(self, text: str, token: str, start: int, end: int) -> bool:
        """Say whether a token goes on with a word, as transformers' pipeline finds it out."""
        if self._marks_subwords:
            return len(token) != end - start
        return start > 0 and " " not in text[start - 1 : start + 1]


def _own(is_special: Sequence[int]) -> tuple[int, int]:
    """Return where a text's own tokens begin and end: special ones are around them."""
    begin, end = 0, len(is_special)
    while begin < end and is_special[begin]:
        begin += 1
    while end > begin and is_special[end - 1]:
        end -= 1
    return begin, end


def _around(tokens: Sequence[int], before: int, end: int, start: int, room: int) -> list[int]:
    """Return a window of a text's own tokens with the special ones around it."""
    own = tokens[before:end][start : start + room]
    return [*tokens[:before], *own, *tokens[end:]]
