"""Which waiting texts run together next; without threads and without a clock."""

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.batching.admission import Work

Item = TypeVar("Item")

# What one engine call costs besides its tokens, in tokens: a neighbour joins a batch when the
# padding that it causes is cheaper than a call of its own. See docs/decisions/0005-batching.md.
CALL_COST_TOKENS = 16
# When so many batches have overtaken a ticket, batches are cut by arrival until it has run.
MAX_OVERTAKEN = 12  # 4 was reached all the time at 64 clients: 21 % padding instead of 8


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item]):
    """One text in the queue."""

    item: Item
    cost: int  # tokens
    sequence: int = -1  # order of arrival; given by the queue
    overtaken: int = field(default=0, compare=False)  # batches that took a younger ticket


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[Item]):
    """Tickets that run together."""

    tickets: list[Ticket[Item]]

    @property
    def cost(self) -> int:
        """Tokens that the engine runs, padding included: longest times count."""
        return max(ticket.cost for ticket in self.tickets) * len(self.tickets)

    @property
    def work(self) -> Work:
        """What admission counts while it runs."""
        return Work(tokens=self.tokens, texts=len(self.tickets))

    @property
    def tokens(self) -> int:
        """Tokens without the padding."""
        return sum(ticket.cost for ticket in self.tickets)


class BatchQueue(Generic[Item]):
    """Holds tickets and cuts batches around the oldest, from its neighbours in length.

    After `text-embeddings-inference` (token budget) and `infinity` (sorting by length); the guard
    on overtaking is ours.

    Args:
        max_count: tickets in a batch.
        max_cost: longest times count of a batch, in tokens. A larger ticket runs alone.

    """

    def __init__(self, *, max_count: int, max_cost: int) -> None:
        self.max_count = max_count
        self.max_cost = max_cost
        self.cost = 0  # tokens of all that wait
        self._next_sequence = 0
        self._waiting: dict[int, Ticket[Item]] = {}  # by arrival
        self._by_length: list[tuple[int, int]] = []  # (cost, sequence), sorted

    def __len__(self) -> int:
        """Return how many tickets wait."""
        return len(self._waiting)

    def push(self, ticket: Ticket[Item]) -> None:
        """Add a ticket."""
        ticket.sequence = self._next_sequence
        self._next_sequence += 1
        self._waiting[ticket.sequence] = ticket
        insort(self._by_length, (ticket.cost, ticket.sequence))
        self.cost += ticket.cost

    def remove(self, ticket: Ticket[Item]) -> bool:
        """Take a ticket out, wherever it is; return whether it was still waiting."""
        if self._waiting.pop(ticket.sequence, None) is None:
            return False
        del self._by_length[bisect_left(self._by_length, (ticket.cost, ticket.sequence))]
        self.cost -= ticket.cost
        return True

    def cut(self) -> Batch[Item] | None:
        """Take the next batch out; None when nothing waits."""
        if not self._waiting:
            return None
        # What overtakes a ticket overtakes all older ones too: the oldest has the highest count.
        if next(iter(self._waiting.values())).overtaken >= MAX_OVERTAKEN:
            chosen = self._in_order_of_arrival()
        else:
            chosen = self._neighbours_of_the_oldest()
        for ticket in chosen:
            self.remove(ticket)
        youngest = max(ticket.sequence for ticket in chosen)
        for ticket in self._waiting.values():
            if ticket.sequence > youngest:
                break  # by arrival: the rest is younger still
            ticket.overtaken += 1
        return Batch(tickets=chosen)

    def _in_order_of_arrival(self) -> list[Ticket[Item]]:
        """Choose the oldest tickets, as many as fit."""
        chosen: list[Ticket[Item]] = []
        longest = 0
        for ticket in self._waiting.values():
            longest = max(longest, ticket.cost)
            if chosen and not self._fits(longest, len(chosen) + 1):
                break
            chosen.append(ticket)
        return chosen

    def _neighbours_of_the_oldest(self) -> list[Ticket[Item]]:
        """Choose a window of the sorted lengths, grown from the oldest to the cheaper side."""
        oldest = next(iter(self._waiting.values()))
        low = bisect_left(self._by_length, (oldest.cost, oldest.sequence))
        high = low + 1  # the window is low..high, high not included
        while side := self._cheaper_side(low, high):
            low, high = (low - 1, high) if side < 0 else (low, high + 1)
        return [self._waiting[sequence] for _, sequence in self._first_come(low, high)]

    def _first_come(self, low: int, high: int) -> list[tuple[int, int]]:
        """Return the window, with the oldest tickets of its shortest length.

        It grew to the left, so from the youngest tickets of that length.
        """
        shortest = self._by_length[low][0]
        first = bisect_left(self._by_length, (shortest, -1))
        count = min(bisect_left(self._by_length, (shortest + 1, -1)), high) - low
        return self._by_length[first : first + count] + self._by_length[low + count : high]

    def _cheaper_side(self, low: int, high: int) -> int:
        """Return -1 when a shorter neighbour should join, 1 for a longer one, 0 for neither."""
        longest, count = self._by_length[high - 1][0], high - low
        offers = []
        if low > 0 and self._fits(longest, count + 1):
            offers.append((longest - self._by_length[low - 1][0], -1))
        if high < len(self._by_length) and self._fits(self._by_length[high][0], count + 1):
            # Of equal lengths the younger ones are to the right.
            offers.append((count * (self._by_length[high][0] - longest), 1))
        padding, side = min(offers, default=(CALL_COST_TOKENS + 1, 0))
        return side if padding <= CALL_COST_TOKENS else 0

    def _fits(self, longest: int, count: int) -> bool:
        return count <= self.max_count and longest * count <= self.max_cost
