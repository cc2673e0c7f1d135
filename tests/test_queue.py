"""The batch queue: what must hold for every order of arrivals, cuts and cancels."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.batching.queue import CALL_COST_TOKENS, MAX_OVERTAKEN, Batch, BatchQueue, Ticket

pytestmark = pytest.mark.core

MAX_COUNT = 4
MAX_COST = 600


def queue(max_count: int = MAX_COUNT, max_cost: int = MAX_COST) -> BatchQueue[str]:
    return BatchQueue(max_count=max_count, max_cost=max_cost)


def push(waiting: BatchQueue[str], *costs: int) -> list[Ticket[str]]:
    tickets = [Ticket(item=f"{n}", cost=cost) for n, cost in enumerate(costs)]
    for ticket in tickets:
        waiting.push(ticket)
    return tickets


def cut(waiting: BatchQueue[str]) -> Batch[str]:
    batch = waiting.cut()
    assert batch is not None
    return batch


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of arrivals, cancels and cuts, against what a list would say."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = queue()
        self.waiting: list[Ticket[str]] = []
        self.left: set[int] = set()
        self.overtaken: dict[int, int] = {}

    @rule(cost=st.sampled_from([1, 2, 3, 10, 26, 27, 28, 50, 120, 300, 512, 700]))
    def arrive(self, cost: int) -> None:
        ticket = Ticket(item="x", cost=cost)
        self.queue.push(ticket)
        self.waiting.append(ticket)
        self.overtaken[ticket.sequence] = 0

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        assert self.queue.remove(ticket)
        assert not self.queue.remove(ticket), "it leaves once"
        self.waiting.remove(ticket)

    @precondition(lambda self: self.waiting)
    @rule()
    def cut(self) -> None:
        oldest = self.waiting[0]
        batch = cut(self.queue)
        assert oldest in batch.tickets, "the oldest never waits for another batch"
        assert len(batch.tickets) <= MAX_COUNT
        assert batch.cost <= MAX_COST or len(batch.tickets) == 1
        for ticket in batch.tickets:
            self.waiting.remove(ticket)  # fails if it had left before, or never came
            assert ticket.sequence not in self.left
            self.left.add(ticket.sequence)
        self.check_first_come(batch)
        youngest = max(ticket.sequence for ticket in batch.tickets)
        for ticket in self.waiting:
            self.overtaken[ticket.sequence] += ticket.sequence < youngest
            assert self.overtaken[ticket.sequence] <= MAX_OVERTAKEN

    def check_first_come(self, batch: Batch[str]) -> None:
        for taken in batch.tickets:
            for waits in self.waiting:
                assert waits.cost != taken.cost or waits.sequence > taken.sequence

    @invariant()
    def it_counts_what_waits(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.cost == sum(ticket.cost for ticket in self.waiting)


TestQueue = QueueMachine.TestCase


@given(st.lists(st.integers(1, 512), max_size=60))
def test_everything_that_came_leaves_exactly_once(costs: list[int]) -> None:
    waiting = queue()
    tickets = push(waiting, *costs)
    batches = iter(waiting.cut, None)
    left = [ticket for batch in batches for ticket in batch.tickets]
    assert sorted(t.sequence for t in left) == [t.sequence for t in tickets]
    assert (len(waiting), waiting.cost) == (0, 0)


def test_an_empty_queue_cuts_nothing() -> None:
    assert queue().cut() is None


def test_neighbours_in_length_run_together() -> None:
    waiting = queue()
    push(waiting, 100, 5, 101, 6, 99, 5)
    assert sorted(t.cost for t in cut(waiting).tickets) == [99, 100, 101]
    assert sorted(t.cost for t in cut(waiting).tickets) == [5, 5, 6]


def test_a_text_joins_only_when_its_padding_is_cheaper_than_a_call() -> None:
    waiting = queue()
    push(waiting, 100, 100 - CALL_COST_TOKENS, 100 - CALL_COST_TOKENS - 1)
    assert [t.cost for t in cut(waiting).tickets] == [100 - CALL_COST_TOKENS, 100]
    waiting = queue()
    push(waiting, 10, 10, 10 + CALL_COST_TOKENS // 2, 16 + CALL_COST_TOKENS // 2)
    assert len(cut(waiting).tickets) == 3


def test_a_text_larger_than_the_bound_runs_alone() -> None:
    waiting = queue()
    push(waiting, MAX_COST + 1, MAX_COST + 1)
    assert len(cut(waiting).tickets) == 1
    assert len(cut(waiting).tickets) == 1


def test_a_text_that_was_overtaken_often_enough_is_overtaken_no_more() -> None:
    waiting = queue(max_count=2)
    push(waiting, 300, 300)
    (lonely,) = push(waiting, 20)
    for _ in range(MAX_OVERTAKEN + 1):
        push(waiting, 300, 300)
    for _ in range(MAX_OVERTAKEN + 2):
        if lonely in cut(waiting).tickets:
            break
    assert lonely.overtaken <= MAX_OVERTAKEN


def test_a_batch_knows_its_padding() -> None:
    batch = Batch(tickets=[Ticket(item="a", cost=10), Ticket(item="b", cost=8)])
    assert (batch.cost, batch.tokens) == (20, 18)
