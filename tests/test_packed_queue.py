"""The queue of an engine that packs texts into rows: full rows, and no text waits for ever."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.batching.packed_queue import LAST_ROOM_TOKENS, PackedQueue
from app.batching.queue import Batch, Ticket
from app.engines.packing import Packing, lay_out

pytestmark = pytest.mark.core

PACKING = Packing(rows=2, row_tokens=128)
MAX_COUNT = 12


def queue(*costs: int, max_count: int = MAX_COUNT) -> PackedQueue[str]:
    waiting: PackedQueue[str] = PackedQueue(max_count=max_count, packing=PACKING)
    for number, cost in enumerate(costs):
        waiting.push(Ticket(item=f"{number}", cost=cost))
    return waiting


def cut(waiting: PackedQueue[str]) -> Batch[str]:
    batch = waiting.cut()
    assert batch is not None
    return batch


def costs_of(batch: Batch[str]) -> list[int]:
    return [ticket.cost for ticket in batch.tickets]


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of arrivals, cancels and cuts, against what a list would say."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.waiting: list[Ticket[str]] = []

    @rule(cost=st.sampled_from([1, 2, 3, 10, 26, 27, 28, 50, 120, 128, 129, 200, 256, 257, 512]))
    def arrive(self, cost: int) -> None:
        ticket = Ticket(item="x", cost=cost)
        self.queue.push(ticket)
        self.waiting.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(ticket)
        self.waiting.remove(ticket)

    @precondition(lambda self: self.waiting)
    @rule()
    def cut(self) -> None:
        oldest = self.waiting[0]
        batch = cut(self.queue)
        assert oldest in batch.tickets, "the oldest never waits for another batch"
        assert len(batch.tickets) <= MAX_COUNT
        assert len(list(lay_out(costs_of(batch), PACKING))) == 1, "a batch is one call"
        assert batch.tokens <= PACKING.tokens or len(batch.tickets) == 1
        assert batch.tokens <= batch.cost
        for ticket in batch.tickets:
            self.waiting.remove(ticket)  # fails if it had left before, or never came
        for taken in batch.tickets:
            for waits in self.waiting:
                assert waits.cost != taken.cost or waits.sequence > taken.sequence

    @invariant()
    def it_counts_what_waits(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.cost == sum(ticket.cost for ticket in self.waiting)


TestQueue = QueueMachine.TestCase


def test_an_empty_queue_cuts_nothing() -> None:
    assert queue().cut() is None


def test_texts_come_in_order_until_the_end_of_a_row_and_the_longest_that_fits_fills_it() -> None:
    waiting = queue(60, 40, 5, 22, 90, 70, 23, 9, 28)
    assert costs_of(cut(waiting)) == [60, 40, 5, 23, 22, 90, 9]
    assert costs_of(cut(waiting)) == [70, 28]


def test_a_text_longer_than_a_row_gets_a_longer_one() -> None:
    waiting = queue(129, 100, 27, 20)
    assert costs_of(cut(waiting)) == [129, 100, 27]


def test_a_text_longer_than_a_call_runs_alone() -> None:
    waiting = queue(300, 10)
    assert costs_of(cut(waiting)) == [300]


def test_no_more_texts_are_taken_than_a_batch_may_have() -> None:
    assert costs_of(cut(queue(*[10] * 9, max_count=4))) == [10] * 4


def test_the_cost_of_a_batch_is_what_its_rows_take() -> None:
    assert cut(queue(100, 100, 20, 20)).cost == 256
    assert cut(queue(20, 9)).cost == 32, "few texts take a short row"


def test_rows_are_nearly_full_and_waiting_is_even_where_many_wait() -> None:
    """64 texts in flight, of the lengths of review snippets: each that leaves is replaced."""
    lengths = random.Random(1)  # noqa: S311  # an order, not a secret
    waiting = queue()
    tokens = cost = 0
    cuts_waited = []
    came: dict[int, int] = {}
    for number in range(400):
        while len(waiting) < 64:
            ticket = Ticket(item="", cost=round(min(78, max(4, lengths.gauss(27, 13)))))
            waiting.push(ticket)
            came[ticket.sequence] = number
        batch = cut(waiting)
        tokens, cost = tokens + batch.tokens, cost + batch.cost
        cuts_waited += [number - came[ticket.sequence] for ticket in batch.tickets]
    assert tokens / cost > 0.98
    mean = sum(cuts_waited) / len(cuts_waited)
    assert sorted(cuts_waited)[round(len(cuts_waited) * 0.99)] < 1.5 * mean
    assert max(cuts_waited) < 2 * mean


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40))
def test_a_layout_has_every_text_once_and_no_row_overflows(costs: list[int]) -> None:
    layouts = list(lay_out(costs, PACKING))
    indices = [index for layout in layouts for row in layout.rows for index in row]
    assert indices == list(range(len(costs)))
    for layout in layouts:
        assert layout.tokens <= PACKING.tokens or layout.rows == [[layout.rows[0][0]]]
        assert all(sum(costs[index] for index in row) <= layout.width for row in layout.rows)


def test_a_packing_can_be_bounded_below_a_row() -> None:
    assert PACKING.bounded(1000) == PACKING
    assert PACKING.bounded(200) == Packing(rows=1, row_tokens=128)
    assert PACKING.bounded(LAST_ROOM_TOKENS // 2) == Packing(rows=1, row_tokens=10)
