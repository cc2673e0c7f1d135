"""The scheduler with items that aren't texts: their engine says what each costs."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from serving import batched

from app.batching.deadline import Deadline
from app.errors import OverloadedError

pytestmark = pytest.mark.core

LATE = 30.0


@dataclass(frozen=True)
class Number:
    cost: int
    is_truncated: bool = False


class Numbers:
    """Squares numbers, each of which is its own cost; refuses negative ones, fails on 13."""

    kind = "test"
    device = "none"
    workers = 1
    max_batch = 8

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.problem = ""

    def estimate(self, items: Sequence[int]) -> int:
        return sum(items)

    def encode(self, items: Sequence[int], /) -> list[Number | Exception]:
        return [Number(item) if item >= 0 else ValueError("negative") for item in items]

    def run(self, batch: Sequence[Number]) -> list[int]:
        self.batches.append([number.cost for number in batch])
        self.entered.set()
        self.gate.wait(LATE)
        if 13 in self.batches[-1]:
            raise ValueError("unlucky")
        return [number.cost**2 for number in batch]

    def problems(self) -> list[str]:
        return [self.problem] if self.problem else []

    def close(self) -> None:
        pass


async def test_items_get_their_own_rows_and_those_that_fail_their_own_errors() -> None:
    engine = Numbers()
    engine.gate.set()
    scheduler = batched(engine)
    outcome = await scheduler.submit([3, -1, 13, 5], deadline=Deadline.after(LATE))
    assert (outcome.rows[0], outcome.rows[3]) == (9, 25)
    assert [str(row) for row in outcome.rows[1:3]] == ["negative", "unlucky"]
    assert outcome.tokens == 3 + 13 + 5
    scheduler.close(timeout_s=LATE)


async def test_batches_are_cut_by_the_cost_that_the_engine_says() -> None:
    engine = Numbers()
    engine.gate.set()
    scheduler = batched(engine, max_batch_tokens=200)
    await scheduler.submit([100, 1, 100, 1, 100], deadline=Deadline.after(LATE))
    assert sorted(map(sorted, engine.batches)) == [[1, 1], [100], [100, 100]]
    scheduler.close(timeout_s=LATE)


async def test_what_costs_too_much_is_refused_before_it_is_prepared() -> None:
    engine = Numbers()
    scheduler = batched(engine, max_queued_tokens=100)
    request = scheduler._requests.admit([1], "", tokens=60, deadline=Deadline.after(LATE))
    with pytest.raises(OverloadedError):
        await scheduler.submit([60], deadline=Deadline.after(LATE))
    assert engine.batches == []
    scheduler._requests.forget(request)
    engine.gate.set()
    scheduler.close(timeout_s=LATE)


async def test_the_engine_s_own_problem_is_one_of_the_model() -> None:
    engine = Numbers()
    scheduler = batched(engine)
    scheduler.measure()  # has no items of its own, so it calls nothing
    assert scheduler.problems(max_call_s=LATE) == []
    engine.problem = "check: no GPU"
    assert scheduler.problems(max_call_s=LATE) == ["test: check: no GPU"]
    assert engine.batches == []
    scheduler.close(timeout_s=LATE)
