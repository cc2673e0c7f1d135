"""Cuts a text into passages that fit into a model's window. Pure.

A passage is as many whole sentences as fit. A sentence ends with a full stop, an exclamation or
question mark or an ellipsis before white space, with such a mark of a script that writes no space
after it, or at the end of its line. The next passage begins with the last sentences of the one
before, up to the overlap, so that sentences that refer to each other stay together. A sentence
longer than the window is cut at white space, or, where it has none, between two tokens.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

Offsets = Callable[[str], Sequence[tuple[int, int]]]

# The share of the window that the overlap may take.
OVERLAP_SHARE = 0.2
# Latin and Greek, Arabic, Devanagari, Armenian, Ethiopic, Burmese and Khmer; then Chinese and
# Japanese, which have full-width marks without a space after them.
SENTENCE_END = re.compile(
    r"""[.!?…؟۔।॥։።။។]["'”’»)\]]*+(?=\s)"""  # noqa: RUF001 -- marks of other scripts are meant
    r"|[。！？｡．]+[”’」』）】》]*"  # noqa: RUF001 -- as above
    r"|\n+"
)


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a text: its characters from `start` to before `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence, or a piece of one that is too long, with all white space after it."""

    start: int
    end: int
    tokens: int


def spans(text: str, *, window: int, overlap: int, offsets: Offsets) -> list[Span]:
    """Cut a text into passages; each character that isn't white space is in one at least.

    Args:
        text: of any length.
        window: tokens that fit into the model, without its special ones.
        overlap: tokens of a passage that the next one may repeat.
        offsets: returns start and end of each token of a text, in characters and in order, as the
            model's tokenizer cuts it.

    Returns:
        At least one, in order. A passage has more tokens than the window only if a single character
        has, or if its words are tokenised differently on their own. A text of white space alone is
        one passage: as much of it as fits.

    """
    whole = [Span(0, len(text))]
    if _is_short(text, window):
        return whole
    tokens = offsets(text)
    if len(tokens) <= window:
        return whole
    sentences = list(_sentences(text, tokens, window))
    passages = (
        _trimmed(text, sentences[first].start, sentences[last - 1].end)
        for first, last in _groups(sentences, window=window, overlap=overlap)
    )
    not_empty = [passage for passage in passages if passage.start < passage.end]
    return not_empty or [_beginning(text, tokens, window)]


def _is_short(text: str, window: int) -> bool:
    """Say whether a text fits for sure without tokenising it: a token has at least one byte.

    It must be shorter than the window, since some tokenizers add a token for a leading blank.
    """
    if len(text) >= window:
        return False
    return text.isascii() or len(text.encode("utf-8", "replace")) < window


def _sentences(text: str, tokens: Sequence[tuple[int, int]], window: int) -> Iterator[_Sentence]:
    """Yield sentences that follow each other without a gap, none longer than the window."""
    starts = [start for start, _ in tokens]
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    for start, end in pairwise(dict.fromkeys([0, *ends, len(text)])):
        first, last = bisect_left(starts, start), bisect_left(starts, end)
        while last - first > window:
            cut = _cut(text, starts, first=first, window=window, last=last)
            if cut == last:
                break
            yield _Sentence(start, starts[cut], cut - first)
            start, first = starts[cut], cut  # noqa: PLW2901 -- the rest of this sentence
        yield _Sentence(start, end, last - first)


def _cut(text: str, starts: Sequence[int], *, first: int, window: int, last: int) -> int:
    """Return the token at which the next piece of a long sentence begins.

    That is the last token in the window that begins with a blank or after one; else the last one in
    the window; else, if a single character has more tokens than that, the next character's first.
    """
    words = range(first + window, first, -1)
    for token in words:
        place = starts[token]
        if (text[place - 1].isspace() or text[place].isspace()) and starts[token - 1] < place:
            return token
    for token in words:
        if starts[token - 1] < starts[token]:
            return token
    return next((t for t in range(first + window, last) if starts[t - 1] < starts[t]), last)


def _groups(
    sentences: Sequence[_Sentence], *, window: int, overlap: int
) -> Iterator[tuple[int, int]]:
    """Yield the sentences of each passage, as many as fit: the first, and one past the last."""
    first, last, tokens = 0, 0, 0
    while last < len(sentences):
        while last < len(sentences) and (
            last == first or tokens + sentences[last].tokens <= window
        ):
            tokens += sentences[last].tokens
            last += 1
        yield first, last
        if last == len(sentences):
            return
        space = min(overlap, window - sentences[last].tokens)
        before, first, tokens = first, last, 0
        while first - 1 > before and tokens + sentences[first - 1].tokens <= space:
            first -= 1
            tokens += sentences[first].tokens


def _beginning(text: str, tokens: Sequence[tuple[int, int]], window: int) -> Span:
    """Return as much of a text of white space as fits: byte tokenizers have tokens for it."""
    starts = [start for start, _ in tokens]
    cut = _cut(text, starts, first=0, window=window, last=len(starts))
    return Span(0, starts[cut] if cut < len(starts) else len(text))


def _trimmed(text: str, start: int, end: int) -> Span:
    """Return a piece without the white space around it."""
    piece = text[start:end]
    trimmed_end = start + len(piece.rstrip())
    return Span(min(trimmed_end, end - len(piece.lstrip())), trimmed_end)
