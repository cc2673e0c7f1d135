"""Places for generations: bounded, in order, refused with a time that is worth something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.batching import generations as module
from app.batching.deadline import Deadline
from app.batching.generations import GenerationPolicy, Generations, Slot
from app.core.metrics import Metrics
from app.errors import DeadlineExceededError, NotReadyError, OverloadedError

pytestmark = pytest.mark.core

SOON = 0.02  # seconds; the only waiting is for deadlines to pass


class Engine:
    """Only ever closed here."""

    kind = "fake"
    is_closed = False

    def close(self) -> None:
        self.is_closed = True


def make(slots: int = 1, waiting: int = 1) -> tuple[Generations, Metrics]:
    metrics = Metrics()
    generations = Generations(
        "chat",
        engine=cast("Any", Engine()),
        chain=cast("Any", None),
        policy=GenerationPolicy(slots=slots, waiting=waiting),
        metrics=metrics,
    )
    return generations, metrics


@asynccontextmanager
async def slot(generations: Generations, deadline: Deadline) -> AsyncIterator[Slot]:
    acquired = await generations.acquire(deadline)
    try:
        yield acquired
    finally:
        generations.release(acquired)


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    value = metrics.registry.get_sample_value(f"mlapi_{name}", {"model": "chat", **labels})
    return value or 0.0


class Holder:
    """A generation that holds its slot until it is told to go."""

    def __init__(self, generations: Generations, *, timeout_s: float = 60) -> None:
        self.go = asyncio.Event()
        self.has_slot = asyncio.Event()
        self.task = asyncio.create_task(self._hold(generations, Deadline.after(timeout_s)))

    async def _hold(self, generations: Generations, deadline: Deadline) -> None:
        async with slot(generations, deadline):
            self.has_slot.set()
            await self.go.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_that_wait_get_places_in_the_order_of_arrival() -> None:
    generations, metrics = make(slots=1, waiting=2)
    first, second, third = (Holder(generations) for _ in range(3))
    await settle()
    assert [h.has_slot.is_set() for h in (first, second, third)] == [True, False, False]
    assert sample(metrics, "generations_active") == 1
    assert sample(metrics, "generations_waiting") == 2
    first.go.set()
    await settle()
    assert [h.has_slot.is_set() for h in (second, third)] == [True, False]
    second.go.set()
    third.go.set()
    await asyncio.gather(first.task, second.task, third.task)
    assert sample(metrics, "generations_active") == 0
    assert sample(metrics, "generations_waiting") == 0


async def test_more_than_may_wait_are_refused_at_once_with_a_time() -> None:
    generations, metrics = make(slots=2, waiting=1)
    held = [Holder(generations) for _ in range(3)]
    await settle()
    with pytest.raises(OverloadedError) as refused:
        async with slot(generations, Deadline.after(60)):
            pass
    # Nothing is known yet: a guess of 5 s, and two slots.
    assert refused.value.headers["Retry-After"] == "3"
    assert sample(metrics, "refused_total", reason="overloaded") == 1
    for holder in held:
        holder.go.set()
    await asyncio.gather(*(holder.task for holder in held))


async def test_a_wait_beyond_the_deadline_is_refused_before_it_begins() -> None:
    generations, _ = make(slots=1, waiting=9)
    holder = Holder(generations)
    await settle()
    with pytest.raises(OverloadedError) as refused:
        async with slot(generations, Deadline.after(module.FIRST_GUESS_S - 2.5)):
            pass
    assert refused.value.headers["Retry-After"] == "3"
    holder.go.set()
    await holder.task


async def test_what_was_measured_takes_the_place_of_the_guess() -> None:
    generations, _ = make(slots=1, waiting=9)
    for _ in range(3):
        async with slot(generations, Deadline.after(60)):
            pass
    holder = Holder(generations)
    await settle()
    waiter = Holder(generations, timeout_s=1)  # hopeless by the guess, and not by what was seen
    await settle()
    assert not waiter.task.done()
    holder.go.set()
    waiter.go.set()
    await asyncio.gather(holder.task, waiter.task)


async def test_a_deadline_that_passes_while_waiting_gives_its_place_up() -> None:
    generations, metrics = make()
    async with slot(generations, Deadline.after(60)):
        pass
    holder = Holder(generations)
    await settle()
    late = Holder(generations, timeout_s=SOON)
    with pytest.raises(DeadlineExceededError):
        await late.task
    assert sample(metrics, "refused_total", reason="deadline") == 1
    assert sample(metrics, "generations_waiting") == 0
    holder.go.set()
    await holder.task
    async with slot(generations, Deadline.after(60)):
        assert sample(metrics, "generations_active") == 1


async def test_a_client_that_leaves_while_waiting_is_counted_and_forgotten() -> None:
    generations, metrics = make()
    holder = Holder(generations)
    await settle()
    leaver = Holder(generations)
    await settle()
    leaver.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver.task
    assert sample(metrics, "cancelled_total", stage="queued") == 1
    assert sample(metrics, "generations_waiting") == 0
    holder.go.set()
    await holder.task


async def test_silence_is_told_and_a_token_ends_it() -> None:
    generations, _ = make()
    assert generations.problems(max_call_s=0) == []
    async with slot(generations, Deadline.after(60)) as acquired:
        acquired.progress_s -= 100
        assert generations.longest_call_s() == pytest.approx(100, abs=1)
        assert generations.problems(max_call_s=60) == [
            "chat: a generation has been silent for 100 s"
        ]
        acquired.progress_s += 100
        assert generations.problems(max_call_s=60) == []


async def test_a_closed_model_takes_nobody() -> None:
    generations, _ = make()
    generations.close(timeout_s=0)
    assert cast("Any", generations.engine).is_closed
    with pytest.raises(NotReadyError):
        async with slot(generations, Deadline.after(60)):
            pass
