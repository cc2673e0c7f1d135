"""Which waiting texts run together next on an engine that packs them into rows."""

from bisect import bisect_left
from dataclasses import dataclass
from typing import TypeVar

from app.batching.queue import Batch, BatchQueue, Ticket
from app.engines.packing import Packing, lay_out

Item = TypeVar("Item")

# Texts come in order of arrival until a row would have less room than this left; then the longest
# that fits is taken. With 20, rows are 99 % full at 64 connections of review sentences, and of 100
# texts one waits longer than 1.2 times the mean; the longest first, 2.1 times. See
# docs/decisions/0016-packed-rows.md.
LAST_ROOM_TOKENS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedBatch(Batch[Item]):
    """Tickets that run together, in the order of their rows."""

    packing: Packing

    @property
    def cost(self) -> int:
        """Tokens that the engine runs, what stays empty of its rows included."""
        costs = [ticket.cost for ticket in self.tickets]
        return sum(layout.tokens for layout in lay_out(costs, self.packing))


class PackedQueue(BatchQueue[Item]):
    """Holds tickets and fills rows, each beginning with the oldest that fits.

    The oldest of all is in every batch, so a ticket waits for no more batches than there were
    tickets before it.

    Args:
        max_count: tickets in a batch.
        packing: of the engine.

    """

    def __init__(self, *, max_count: int, packing: Packing) -> None:
        super().__init__(max_count=max_count, max_cost=packing.tokens)
        self._packing = packing

    def cut(self) -> Batch[Item] | None:
        """Take the next batch out; None when nothing waits."""
        if not self._waiting:
            return None
        oldest = next(iter(self._waiting.values()))
        packing = self._packing.holding(oldest.cost)
        chosen: list[Ticket[Item]] = []
        for _ in range(packing.rows):
            self._fill(chosen, packing.row_tokens)
        return PackedBatch(tickets=chosen, packing=self._packing)

    def _fill(self, chosen: list[Ticket[Item]], room: int) -> None:
        """Take tickets for one row, until none that waits fits into what is left of it.

        So the engine, which begins a new row where a text doesn't fit, makes the same rows.
        """
        first = self._in_order(room, self.max_count - len(chosen))
        for ticket in first:
            self._take(ticket, chosen)
            room -= ticket.cost
        while len(chosen) < self.max_count and (last := self._longest(room)):
            self._take(last, chosen)
            room -= last.cost

    def _in_order(self, room: int, count: int) -> list[Ticket[Item]]:
        """Return the oldest that fits, and others in order while enough room is left."""
        first: list[Ticket[Item]] = []
        for ticket in self._waiting.values():
            if len(first) == count or (first and room < LAST_ROOM_TOKENS):
                break
            if ticket.cost > room:
                continue
            if first and room - ticket.cost < LAST_ROOM_TOKENS:
                break
            first.append(ticket)
            room -= ticket.cost
        return first

    def _take(self, ticket: Ticket[Item], chosen: list[Ticket[Item]]) -> None:
        self.remove(ticket)
        chosen.append(ticket)

    def _longest(self, room: int) -> Ticket[Item] | None:
        """Return the longest ticket that fits, the oldest of several; None where none does."""
        above = bisect_left(self._by_length, (room + 1, -1))
        if above == 0:
            return None
        cost = self._by_length[above - 1][0]
        _, sequence = self._by_length[bisect_left(self._by_length, (cost, -1))]
        return self._waiting[sequence]
