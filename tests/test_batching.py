"""The pool and the isolation of failures, without HTTP."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batching.deadline import Deadline
from app.batching.isolation import WrongCountError, run_isolated
from app.batching.pool import InferencePool
from app.errors import DeadlineExceededError, NotReadyError
from app.observability.metrics import Metrics


def pool(threads: int = 1, max_waiting: int = 8) -> InferencePool:
    return InferencePool(threads=threads, max_waiting=max_waiting, metrics=Metrics())


def nothing() -> None:
    """What a test passes as on_done when it doesn't matter."""


@given(st.lists(st.booleans(), min_size=1, max_size=64))
def test_exactly_the_bad_items_fail_and_order_is_kept(is_bad: list[bool]) -> None:
    calls = 0

    def run(items: Sequence[tuple[int, bool]]) -> list[int]:
        nonlocal calls
        calls += 1
        if any(bad for _, bad in items):
            raise ValueError
        return [number for number, _ in items]

    results = run_isolated(run, list(enumerate(is_bad)))
    for number, (bad, result) in enumerate(zip(is_bad, results, strict=True)):
        assert isinstance(result, ValueError) if bad else result == number
    assert calls <= 2 * len(is_bad)


@given(st.integers(1, 40), st.integers(1, 10))
def test_a_batch_that_is_too_large_for_the_memory_is_halved(count: int, fits: int) -> None:
    def run(items: Sequence[int]) -> Sequence[int]:
        if len(items) > fits:
            raise MemoryError
        return items

    assert run_isolated(run, range(count)) == list(range(count))


def test_a_wrong_number_of_results_is_an_error_of_every_item() -> None:
    results = run_isolated(lambda items: [0] * (len(items) + 1), ["a", "b"])
    assert [type(result) for result in results] == [WrongCountError] * 2


async def test_a_result_and_an_exception_come_back_and_on_done_is_called_once() -> None:
    done: list[str] = []
    runs = pool()

    def fail() -> None:
        raise KeyError("mine")

    deadline = Deadline.after(10)
    answer = await runs.run(lambda: 42, deadline=deadline, on_done=lambda: done.append("ok"))
    assert answer == 42
    with pytest.raises(KeyError, match="mine"):
        await runs.run(fail, deadline=deadline, on_done=lambda: done.append("failed"))
    await asyncio.sleep(0)
    assert done == ["ok", "failed"]
    await runs.close(timeout_s=10)


async def test_a_caller_that_is_cancelled_takes_its_waiting_call_along() -> None:
    runs, gate, entered = pool(), threading.Event(), threading.Event()
    ran: list[int] = []

    def hold() -> None:
        entered.set()
        gate.wait(10)

    deadline = Deadline.after(10)
    first = asyncio.create_task(runs.run(hold, deadline=deadline, on_done=nothing))
    await asyncio.to_thread(entered.wait, 10)
    second = asyncio.create_task(
        runs.run(lambda: ran.append(1), deadline=deadline, on_done=nothing)
    )
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    gate.set()
    await first
    await runs.close(timeout_s=10)
    assert ran == []
    assert runs._waiting == 0


async def test_closing_waits_for_the_running_call_and_refuses_the_waiting_one() -> None:
    runs, gate, entered = pool(), threading.Event(), threading.Event()

    def hold() -> str:
        entered.set()
        gate.wait(10)
        return "finished"

    deadline = Deadline.after(10)
    running = asyncio.create_task(runs.run(hold, deadline=deadline, on_done=nothing))
    await asyncio.to_thread(entered.wait, 10)
    waiting = asyncio.create_task(runs.run(hold, deadline=deadline, on_done=nothing))
    await asyncio.sleep(0)
    closing = asyncio.create_task(runs.close(timeout_s=10))
    with pytest.raises(NotReadyError, match="shutting down"):
        await waiting
    assert not closing.done()
    gate.set()
    await closing
    assert await running == "finished"


async def test_closing_gives_up_on_a_call_that_never_ends() -> None:
    runs, gate = pool(), threading.Event()
    late = asyncio.create_task(
        runs.run(lambda: gate.wait(10), deadline=Deadline.after(0.01), on_done=nothing)
    )
    with pytest.raises(DeadlineExceededError):
        await late
    await runs.close(timeout_s=0.01)
    gate.set()


async def test_the_wait_that_a_refusal_names_grows_with_the_queue() -> None:
    runs = pool(threads=2)
    runs._mean_call_s = 0.5
    assert runs._clearing_s(0) == 1
    assert runs._clearing_s(16) == 4
    await runs.close(timeout_s=1)
