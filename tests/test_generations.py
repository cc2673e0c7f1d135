"""Places for generations: bounded, in order, refused with a time that is worth something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from app.batching import generations as module
from app.batching.deadline import Deadline
from app.batching.generations import GenerationPolicy, Generations, Place
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
    made = Generations(
        "chat",
        engine=cast("Any", Engine()),
        chain=cast("Any", None),
        policy=GenerationPolicy(slots=slots, waiting=waiting),
        metrics=metrics,
    )
    return made, metrics


@asynccontextmanager
async def place(places: Generations, deadline: Deadline) -> AsyncIterator[Place]:
    taken = await places.enter(deadline)
    try:
        yield taken
    finally:
        places.leave(taken)


def sample(metrics: Metrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"mlapi_{name}", {"model": "chat", **labels})
    return found or 0.0


class Holder:
    """A generation that holds its place until it is told to go."""

    def __init__(self, places: Generations, *, timeout_s: float = 60) -> None:
        self.go = asyncio.Event()
        self.has_place = asyncio.Event()
        self.task = asyncio.create_task(self._hold(places, Deadline.after(timeout_s)))

    async def _hold(self, places: Generations, deadline: Deadline) -> None:
        async with place(places, deadline):
            self.has_place.set()
            await self.go.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_that_wait_get_places_in_the_order_of_arrival() -> None:
    places, metrics = make(slots=1, waiting=2)
    first, second, third = (Holder(places) for _ in range(3))
    await settle()
    assert [h.has_place.is_set() for h in (first, second, third)] == [True, False, False]
    assert sample(metrics, "generations_active") == 1
    assert sample(metrics, "generations_waiting") == 2
    first.go.set()
    await settle()
    assert [h.has_place.is_set() for h in (second, third)] == [True, False]
    second.go.set()
    third.go.set()
    await asyncio.gather(first.task, second.task, third.task)
    assert sample(metrics, "generations_active") == 0
    assert sample(metrics, "generations_waiting") == 0


async def test_more_than_may_wait_are_refused_at_once_with_a_time() -> None:
    places, metrics = make(slots=2, waiting=1)
    held = [Holder(places) for _ in range(3)]
    await settle()
    with pytest.raises(OverloadedError) as refused:
        async with place(places, Deadline.after(60)):
            pass
    # Nothing is known yet: a guess of 5 s, and two slots.
    assert refused.value.headers["Retry-After"] == "3"
    assert sample(metrics, "refused_total", reason="overloaded") == 1
    for holder in held:
        holder.go.set()
    await asyncio.gather(*(holder.task for holder in held))


async def test_a_wait_beyond_the_deadline_is_refused_before_it_begins() -> None:
    places, _ = make(slots=1, waiting=9)
    holder = Holder(places)
    await settle()
    with pytest.raises(OverloadedError) as refused:
        async with place(places, Deadline.after(module.FIRST_GUESS_S - 2.5)):
            pass
    assert refused.value.headers["Retry-After"] == "3"
    holder.go.set()
    await holder.task


async def test_what_was_measured_takes_the_place_of_the_guess() -> None:
    places, _ = make(slots=1, waiting=9)
    for _ in range(3):
        async with place(places, Deadline.after(60)):
            pass
    holder = Holder(places)
    await settle()
    waiter = Holder(places, timeout_s=1)  # hopeless by the guess, and not by what was seen
    await settle()
    assert not waiter.task.done()
    holder.go.set()
    waiter.go.set()
    await asyncio.gather(holder.task, waiter.task)


async def test_a_deadline_that_passes_while_waiting_gives_its_place_up() -> None:
    places, metrics = make()
    async with place(places, Deadline.after(60)):
        pass
    holder = Holder(places)
    await settle()
    late = Holder(places, timeout_s=SOON)
    with pytest.raises(DeadlineExceededError):
        await late.task
    assert sample(metrics, "refused_total", reason="deadline") == 1
    assert sample(metrics, "generations_waiting") == 0
    holder.go.set()
    await holder.task
    async with place(places, Deadline.after(60)):
        assert sample(metrics, "generations_active") == 1


async def test_a_client_that_leaves_while_waiting_is_counted_and_forgotten() -> None:
    places, metrics = make()
    holder = Holder(places)
    await settle()
    leaver = Holder(places)
    await settle()
    leaver.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver.task
    assert sample(metrics, "cancelled_total", stage="queued") == 1
    assert sample(metrics, "generations_waiting") == 0
    holder.go.set()
    await holder.task


async def test_silence_is_told_and_a_token_ends_it() -> None:
    places, _ = make()
    assert places.problems(max_call_s=0) == []
    async with place(places, Deadline.after(60)) as taken:
        taken.progress_s -= 100
        assert places.longest_call_s() == pytest.approx(100, abs=1)
        assert places.problems(max_call_s=60) == ["chat: a generation has been silent for 100 s"]
        taken.progress_s += 100
        assert places.problems(max_call_s=60) == []


async def test_a_closed_model_takes_nobody() -> None:
    places, _ = make()
    places.close(timeout_s=0)
    assert cast("Any", places.engine).is_closed
    with pytest.raises(NotReadyError):
        async with place(places, Deadline.after(60)):
            pass
