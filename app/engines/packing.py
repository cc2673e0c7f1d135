"""How texts of different lengths share a call without padding: in rows, one behind the other.

Whoever chooses a batch and the engine that runs it lay it out by the same rules, so that a batch's
cost is known before it runs. Measured in docs/decisions/0016-packed-rows.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

LEAST_STEP = 4
STEPS_PER_DOUBLING = 8
# In a row of so many tokens attention costs as much as all else: 6 times the width of models that
# run on processors. It only compares shapes: half or twice as much changes little.
ATTENTION_TOKENS = 2500


def padded(tokens: int) -> int:
    """Return the length that so many tokens are padded to: 4, 8, … 32, 40, … 64, 80 …."""
    above = 1 << max(0, tokens - 1).bit_length()
    step = max(LEAST_STEP, above // STEPS_PER_DOUBLING)
    return -(-tokens // step) * step


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """The rows of a call: how many at most, and how many tokens each."""

    rows: int
    row_tokens: int

    @property
    def tokens(self) -> int:
        """Of a call; a longer text runs alone."""
        return self.rows * self.row_tokens

    def bounded(self, max_tokens: int) -> "Packing":
        """Return the packing for calls of at most so many tokens."""
        row_tokens = min(self.row_tokens, max_tokens)
        rows = min(self.rows, max_tokens // row_tokens)
        return Packing(rows=rows, row_tokens=row_tokens)

    def holding(self, cost: int) -> "Packing":
        """Return the packing for a call with a text of so many tokens: longer rows, but fewer."""
        if cost <= self.row_tokens:
            return self
        return Packing(rows=1, row_tokens=max(self.tokens, cost))


@runtime_checkable
class PackedEngine(Protocol):
    """An engine that may run texts in rows."""

    packing: Packing | None  # None: it takes padded batches


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One call: the texts of each row, as indices in a batch, and the tokens of a row."""

    rows: list[list[int]]
    width: int

    @property
    def tokens(self) -> int:
        """That are run, padding included."""
        return len(self.rows) * self.width


def lay_out(costs: Sequence[int], packing: Packing) -> Iterator[Layout]:
    """Yield the calls that run texts of these lengths.

    Texts are put into rows in their order, and a row ends where the next text doesn't fit. With one
    among them that is longer than a row, each row is a call; one that is longer than a call is
    alone in its row.
    """
    rows, width = packing.rows, packing.row_tokens
    if max(costs, default=0) > width:
        rows, width = 1, packing.tokens
    filled = _fill_rows(costs, width)
    for start in range(0, len(filled), rows):
        yield _cheaper(filled[start : start + rows], costs, width)


def _fill_rows(costs: Sequence[int], width: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room = 0
    for index, cost in enumerate(costs):
        if not rows or cost > room:
            rows.append([])
            room = width
        rows[-1].append(index)
        room -= cost
    return rows


def _cheaper(rows: list[list[int]], costs: Sequence[int], width: int) -> Layout:
    """Return rows of the full width, or a single row that is as long as the texts are."""
    texts = [index for row in rows for index in row]
    single = Layout(rows=[texts], width=padded(sum(costs[index] for index in texts)))
    several = Layout(rows=rows, width=width)
    return single if len(rows) == 1 or _work(single) < _work(several) else several


def _work(layout: Layout) -> float:
    return layout.tokens * (1 + layout.width / ATTENTION_TOKENS)
