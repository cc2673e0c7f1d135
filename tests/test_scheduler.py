"""The scheduler: batches, leaving, failing, dying, closing; with real threads."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from serving import batched

from app.batching.admission import NOTHING, Work
from app.batching.deadline import Deadline
from app.batching.requests import Outcome
from app.batching.scheduler import BatchScheduler
from app.batching.tokenising import estimate_tokens
from app.batching.workers import MAX_RESTARTS, Workers
from app.core.metrics import Metrics
from app.engines.base import Encoded, FloatArray
from app.engines.packing import Packing
from app.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    NotReadyError,
    OverloadedError,
    TextWithoutTokensError,
)

pytestmark = pytest.mark.core

LATE = 30.0


class Engine:
    """Answers each text with its length; remembers its batches; can be held, and told to fail."""

    device = "none"
    kind = "test"
    max_tokens = 500
    labels = ("length",)

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.is_held = False
        self.fail: Callable[[list[int]], Exception | None] = lambda _: None
        self.is_closed = False

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        if any("unreadable" in text for text in texts):
            raise ValueError("unreadable")
        return [Encoded(token_ids=range(len(t)), is_truncated=len(t) > 500) for t in texts]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        costs = [item.cost for item in batch]
        self.batches.append(costs)
        self.entered.release()
        if self.is_held:
            self.gate.wait(LATE)
        if failure := self.fail(costs):
            raise failure
        return np.array([[cost] for cost in costs], dtype=np.float32)

    def close(self) -> None:
        self.is_closed = True


async def submit(scheduler: BatchScheduler[Any], *texts: str, timeout_s: float = LATE) -> Outcome:
    return await scheduler.submit(texts, deadline=Deadline.after(timeout_s))


def lengths(outcome: Outcome) -> list[int | str]:
    return [type(r).__name__ if isinstance(r, Exception) else int(r[0]) for r in outcome.rows]


async def hold(engine: Engine, scheduler: BatchScheduler[Any]) -> asyncio.Task[Outcome]:
    """Occupy the one worker until the gate is opened."""
    engine.is_held = True
    task = asyncio.create_task(submit(scheduler, "x" * 7))
    await asyncio.to_thread(engine.entered.acquire)
    return task


async def queued(scheduler: BatchScheduler[Any], count: int) -> None:
    while len(scheduler._requests._queue) < count:
        await asyncio.sleep(0)


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"mlapi_{name}", {"model": "test", **labels}) or 0.0


async def test_every_text_gets_its_own_row_in_its_own_place() -> None:
    scheduler = batched(Engine(), workers=2)
    texts = [["x" * (n * k * 37 % 300 + 1) for k in range(n % 9 + 1)] for n in range(100)]
    outcomes = await asyncio.gather(*(submit(scheduler, *some) for some in texts))
    assert [lengths(o) for o in outcomes] == [[len(t) for t in some] for some in texts]
    scheduler.close(timeout_s=LATE)


async def test_what_is_closed_goes_without_a_collection_of_garbage() -> None:
    engine = Engine()
    scheduler = batched(engine, workers=2)
    await submit(scheduler, "text")
    gone: list[weakref.ref[Any]] = [weakref.ref(scheduler), weakref.ref(engine)]
    gc.disable()
    try:
        scheduler.close(timeout_s=LATE)
        del scheduler, engine
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


async def test_a_batch_is_what_queued_while_the_engine_was_busy_sorted_by_length() -> None:
    engine = Engine()
    scheduler = batched(engine, max_batch=4)
    first = await hold(engine, scheduler)
    texts = ["a" * n for n in (100, 5, 101, 6, 99, 5, 100, 7)]
    rest = [asyncio.create_task(submit(scheduler, text)) for text in texts]
    await queued(scheduler, 8)
    engine.gate.set()
    await asyncio.gather(first, *rest)
    assert [sorted(batch) for batch in engine.batches] == [[7], [99, 100, 100, 101], [5, 5, 6, 7]]
    scheduler.close(timeout_s=LATE)


async def test_an_engine_that_packs_gets_full_rows_with_the_oldest_in_front() -> None:
    engine, metrics = Engine(), Metrics()
    rows = Packing(rows=2, row_tokens=128)
    scheduler = batched(engine, max_batch=32, packing=rows, metrics=metrics)
    first = await hold(engine, scheduler)
    texts = ["a" * n for n in (60, 100, 68, 28, 9)]
    rest = [asyncio.create_task(submit(scheduler, text)) for text in texts]
    await queued(scheduler, 5)
    engine.gate.set()
    outcomes = await asyncio.gather(first, *rest)
    assert engine.batches == [[7], [60, 68, 100, 28], [9]]
    assert [lengths(outcome) for outcome in outcomes] == [[7], [60], [100], [68], [28], [9]]
    assert value(metrics, "batch_cost_tokens_sum") == 8 + 256 + 12
    assert value(metrics, "batch_padding_ratio_sum") == 1 / 8 + 0 + 3 / 12
    scheduler.close(timeout_s=LATE)


async def test_a_poison_text_in_a_row_fails_alone() -> None:
    engine = Engine()
    scheduler = batched(engine, max_batch=32, packing=Packing(rows=2, row_tokens=128))
    engine.fail = lambda costs: ValueError("poison") if 13 in costs else None
    texts = ["x" * (13 if n == 11 else 14) for n in range(18)]
    rows = lengths(await submit(scheduler, *texts))
    assert rows == ["ValueError" if n == 11 else 14 for n in range(18)]
    scheduler.close(timeout_s=LATE)


async def test_out_of_memory_makes_rows_hold_fewer_texts() -> None:
    engine, metrics = Engine(), Metrics()
    packing = Packing(rows=2, row_tokens=128)
    scheduler = batched(engine, max_batch=32, packing=packing, metrics=metrics)
    engine.fail = lambda costs: MemoryError() if len(costs) > 5 else None
    assert lengths(await submit(scheduler, *["x" * 13] * 18)) == [13] * 18
    engine.batches.clear()
    await submit(scheduler, *["x" * 13] * 9)
    assert max(len(batch) for batch in engine.batches) <= 5
    assert value(metrics, "out_of_memory_total") > 0
    scheduler.close(timeout_s=LATE)


async def test_the_loop_is_woken_once_for_a_batch() -> None:
    engine = Engine()
    scheduler = batched(engine)
    first = await hold(engine, scheduler)
    rest = [asyncio.create_task(submit(scheduler, "x" * 9)) for _ in range(8)]
    await queued(scheduler, 8)
    loop, wakes = asyncio.get_running_loop(), 0
    wake = loop.call_soon_threadsafe

    def counted(*arguments: object, **options: object) -> asyncio.Handle:
        nonlocal wakes
        wakes += 1
        return wake(*arguments, **options)  # type: ignore[arg-type]  # passed on as they are

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign]  # to count
    engine.gate.set()
    await asyncio.gather(first, *rest)
    del loop.call_soon_threadsafe
    assert wakes == 2, "one for the held batch, one for the batch of eight"
    scheduler.close(timeout_s=LATE)


async def test_a_client_that_leaves_takes_its_queued_texts_along() -> None:
    engine, metrics = Engine(), Metrics()
    scheduler = batched(engine, metrics=metrics)
    first = await hold(engine, scheduler)
    leaver = asyncio.create_task(submit(scheduler, "leaver", "leaver too"))
    stayer = asyncio.create_task(submit(scheduler, "stays"))
    await queued(scheduler, 3)
    leaver.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaver
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    engine.gate.set()
    assert lengths(await stayer) == [5]
    assert engine.batches == [[7], [5]]
    assert value(metrics, "cancelled_total", stage="queued") == 2
    assert value(metrics, "cancelled_total", stage="engine") == 1
    assert value(metrics, "wasted_items_total") == 1
    scheduler.close(timeout_s=LATE)


async def test_one_poison_text_in_thirty_two_fails_alone() -> None:
    engine = Engine()
    scheduler = batched(engine, max_batch=32)
    engine.fail = lambda costs: ValueError("poison") if 13 in costs else None
    texts = ["x" * (13 if n == 20 else 14) for n in range(32)]
    rows = lengths(await submit(scheduler, *texts))
    assert rows == ["ValueError" if n == 20 else 14 for n in range(32)]
    scheduler.close(timeout_s=LATE)


async def test_out_of_memory_halves_the_batch_and_lowers_the_bound_for_a_while() -> None:
    engine, metrics = Engine(), Metrics()
    scheduler = batched(engine, max_batch=16, metrics=metrics)
    engine.fail = lambda costs: MemoryError() if len(costs) > 4 else None
    assert lengths(await submit(scheduler, *["x" * 9] * 16)) == [9] * 16
    assert value(metrics, "out_of_memory_total") == 3
    engine.batches.clear()
    await submit(scheduler, *["x" * 9] * 16)
    assert [len(batch) for batch in engine.batches] == [4] * 4
    scheduler._requests._caution_until_s = 0  # as if the while had passed
    engine.fail = lambda _: None
    engine.batches.clear()
    await submit(scheduler, *["x" * 9] * 16)
    assert [len(batch) for batch in engine.batches] == [16]
    scheduler.close(timeout_s=LATE)


async def test_a_text_that_can_t_be_tokenised_fails_alone() -> None:
    scheduler = batched(Engine())
    assert lengths(await submit(scheduler, "fine", "unreadable", "good")) == [4, "ValueError", 4]
    assert lengths(await submit(scheduler, "unreadable")) == ["ValueError"]
    scheduler.close(timeout_s=LATE)


class Tokenised(Engine):
    """Notes which texts are tokenised together, and panics at one, as native code does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.may_begin = threading.Event()

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        self.entered.release()
        self.may_begin.wait(LATE)
        self.calls.append(list(texts))
        if "panic" in texts:
            raise BaseException("panic")  # noqa: TRY002
        return super().encode(texts)


async def test_requests_that_wait_for_the_tokeniser_are_one_call() -> None:
    engine = Tokenised()
    scheduler = batched(engine)
    first = asyncio.create_task(submit(scheduler, "x"))
    await asyncio.to_thread(engine.entered.acquire)
    others = [
        asyncio.create_task(submit(scheduler, text, text * 2)) for text in ("y", "unreadable")
    ]
    await queued_to_tokenise(scheduler, 2)
    engine.may_begin.set()
    assert [lengths(await task) for task in (first, *others)] == [
        [1],
        [1, 2],
        ["ValueError", "ValueError"],
    ]
    assert engine.calls[:2] == [["x"], ["y", "yy", "unreadable", "unreadable" * 2]]
    scheduler.close(timeout_s=LATE)


async def test_a_panic_of_the_tokeniser_fails_its_request_and_no_other() -> None:
    engine = Tokenised()
    scheduler = batched(engine)
    first = asyncio.create_task(submit(scheduler, "x"))
    await asyncio.to_thread(engine.entered.acquire)
    others = [asyncio.create_task(submit(scheduler, text)) for text in ("y", "panic", "z")]
    await queued_to_tokenise(scheduler, 3)
    engine.may_begin.set()
    rows = [lengths(await task) for task in (first, *others)]
    assert rows == [[1], [1], [InferenceFailedError.__name__], [1]]
    scheduler.close(timeout_s=LATE)


@pytest.mark.parametrize(
    ("is_native", "text", "is_here"),
    [(True, "x", True), (True, "x" * 1000, False), (False, "x", False)],
)
async def test_a_short_text_alone_is_tokenised_without_a_hand_over(
    *, is_native: bool, text: str, is_here: bool
) -> None:
    class Noting(Engine):
        tokenises_natively = is_native
        threads: list[threading.Thread] = []  # noqa: RUF012

        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            self.threads.append(threading.current_thread())
            return super().encode(texts)

    engine = Noting()
    scheduler = batched(engine)
    await submit(scheduler, text)
    assert (engine.threads == [threading.main_thread()]) is is_here
    engine.entered.acquire()  # of that text
    first = await hold(engine, scheduler)
    second = asyncio.create_task(submit(scheduler, "y"))
    await queued(scheduler, 1)
    assert engine.threads[-1] is not threading.main_thread(), "another text is before it"
    engine.gate.set()
    await asyncio.gather(first, second)
    scheduler.close(timeout_s=LATE)


async def queued_to_tokenise(scheduler: Any, count: int) -> None:
    while len(scheduler._tokenising._waiting) < count:
        await asyncio.sleep(0)


async def test_a_text_without_tokens_is_refused_alone_and_among_others() -> None:
    scheduler = batched(Engine())
    (alone,) = (await submit(scheduler, "")).rows
    refused, other = (await submit(scheduler, "", "x")).rows
    assert isinstance(alone, TextWithoutTokensError)
    assert isinstance(refused, TextWithoutTokensError)
    assert isinstance(other, np.ndarray)
    scheduler.close(timeout_s=LATE)


async def test_poison_does_not_make_the_engine_look_slow() -> None:
    engine = Engine()
    scheduler = batched(engine)
    await submit(scheduler, "x" * 100)
    before = scheduler._requests.meter.predict_s(Work(tokens=1000, texts=9))
    engine.fail = lambda costs: ValueError("poison") if 13 in costs else None
    await submit(scheduler, *["x" * 13] * 8)
    assert scheduler._requests.meter.predict_s(Work(tokens=1000, texts=9)) == before
    scheduler.close(timeout_s=LATE)


async def test_the_outcome_says_which_texts_were_cut() -> None:
    scheduler = batched(Engine())
    assert (await submit(scheduler, "x", "x" * 501)).is_truncated == [False, True]
    scheduler.close(timeout_s=LATE)


async def test_a_deadline_in_the_queue_takes_the_text_out_before_the_engine_sees_it() -> None:
    engine, metrics = Engine(), Metrics()
    scheduler = batched(engine, metrics=metrics)
    first = await hold(engine, scheduler)
    with pytest.raises(DeadlineExceededError):
        await submit(scheduler, "late", timeout_s=0.05)
    engine.gate.set()
    await first
    assert engine.batches == [[7]]
    assert value(metrics, "refused_total", reason="deadline") == 1
    assert value(metrics, "cancelled_total", stage="queued") == 0
    scheduler.close(timeout_s=LATE)


async def test_what_has_no_chance_is_refused_at_once() -> None:
    engine = Engine()
    scheduler = batched(engine)
    first = await hold(engine, scheduler)
    for tokens in (10, 20):
        scheduler._requests.meter.observe(tokens=tokens, seconds=tokens / 10)
    with pytest.raises(OverloadedError) as refused:
        await submit(scheduler, "x" * 400, timeout_s=2)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s == 1, "what is ahead is done then"
    engine.gate.set()
    await first
    scheduler.close(timeout_s=LATE)


async def test_a_worker_that_dies_fails_its_waiters_at_once_and_is_replaced() -> None:
    engine, metrics = Engine(), Metrics()
    scheduler = batched(engine, metrics=metrics)
    engine.fail = lambda _: SystemExit()  # type: ignore[assignment,return-value]  # kills a thread
    assert lengths(await submit(scheduler, "x")) == [InferenceFailedError.__name__]
    engine.fail = lambda _: None
    assert lengths(await submit(scheduler, "xy")) == [2]
    assert value(metrics, "worker_deaths_total") == 1
    assert scheduler.problems(max_call_s=LATE) == []
    scheduler.close(timeout_s=LATE)


async def test_when_no_worker_is_left_everyone_is_told_and_health_names_it() -> None:
    engine = Engine()
    scheduler = batched(engine, max_batch=1)
    first = await hold(engine, scheduler)
    waiting = [asyncio.create_task(submit(scheduler, "x" * 9)) for _ in range(MAX_RESTARTS + 4)]
    await queued(scheduler, len(waiting))
    engine.fail = lambda _: SystemExit()  # type: ignore[assignment,return-value]  # kills a thread
    engine.gate.set()
    outcomes = [lengths(outcome)[0] for outcome in await asyncio.gather(first, *waiting)]
    assert set(outcomes) == {InferenceFailedError.__name__, NotReadyError.__name__}
    with pytest.raises(NotReadyError):
        await submit(scheduler, "x")
    assert scheduler.problems(max_call_s=LATE) == ["test: 1 of 1 workers dead"]
    scheduler.close(timeout_s=LATE)


async def test_closing_tells_those_who_wait_and_lets_the_running_batch_finish() -> None:
    engine = Engine()
    scheduler = batched(engine)
    first = await hold(engine, scheduler)
    waiting = asyncio.create_task(submit(scheduler, "waits"))
    await queued(scheduler, 1)
    closing = asyncio.create_task(asyncio.to_thread(scheduler.close, timeout_s=LATE))
    assert lengths(await waiting) == [NotReadyError.__name__]
    assert not engine.is_closed
    engine.gate.set()
    await closing
    assert lengths(await first) == [7]
    assert engine.is_closed


async def test_closing_leaves_an_engine_alone_that_never_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = Engine()
    scheduler = batched(engine)
    first = await hold(engine, scheduler)
    await asyncio.to_thread(scheduler.close, timeout_s=0.01)
    assert not engine.is_closed
    assert "engine_still_running" in [record.message for record in caplog.records]
    engine.gate.set()
    await first


async def test_a_request_that_is_still_being_tokenised_when_it_closes_is_told() -> None:
    class Slow(Engine):
        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            self.entered.release()
            self.gate.wait(LATE)
            return super().encode(texts)

    engine = Slow()
    scheduler = batched(engine)
    task = asyncio.create_task(submit(scheduler, "x"))
    await asyncio.to_thread(engine.entered.acquire)
    await asyncio.to_thread(scheduler.close, timeout_s=LATE)
    engine.gate.set()
    assert lengths(await task) == [NotReadyError.__name__]


async def test_a_client_that_leaves_before_its_text_is_tokenised_costs_nothing_more() -> None:
    class Slow(Engine):
        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            self.entered.release()
            self.gate.wait(LATE)
            return super().encode(texts)

    engine, metrics = Slow(), Metrics()
    scheduler = batched(engine, metrics=metrics)
    task = asyncio.create_task(submit(scheduler, "x"))
    await asyncio.to_thread(engine.entered.acquire)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    engine.gate.set()
    assert lengths(await submit(scheduler, "next")) == [4]
    assert engine.batches == [[4]]
    assert value(metrics, "cancelled_total", stage="queued") == 1
    assert scheduler._requests._unqueued == NOTHING
    scheduler.close(timeout_s=LATE)


async def test_rows_for_a_loop_that_is_gone_harm_nobody() -> None:
    engine = Engine()
    scheduler = batched(engine)

    def elsewhere() -> None:
        async def leave_early() -> None:
            engine.is_held = True
            task = asyncio.create_task(submit(scheduler, "x"))
            await asyncio.to_thread(engine.entered.acquire)
            task.cancel()

        asyncio.run(leave_early())

    await asyncio.to_thread(elsewhere)
    engine.gate.set()
    assert lengths(await submit(scheduler, "xyz")) == [3]
    scheduler.close(timeout_s=LATE)


def failing_workers(**callbacks: Callable[[], None]) -> Workers[int]:
    def take() -> int | None:
        raise RuntimeError("a fault of ours")

    return Workers("w", count=1, take=take, do=lambda _: None, **callbacks)


def test_a_worker_whose_take_fails_dies_too() -> None:
    died: list[int] = []
    ended = threading.Event()
    workers = failing_workers(on_death=lambda: died.append(1), on_end=ended.set)
    assert ended.wait(10)
    assert len(died) == MAX_RESTARTS + 1
    assert workers.problems(max_call_s=1) == ["w: 1 of 1 workers dead"]
    assert workers.join(timeout_s=10)


def test_a_worker_that_can_t_be_replaced_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    start = threading.Thread.start

    def start_once(self: threading.Thread) -> None:
        monkeypatch.setattr(threading.Thread, "start", no_thread)
        start(self)

    def no_thread(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start_once)
    workers = failing_workers(on_death=lambda: None, on_end=ended.set)
    assert ended.wait(10)
    assert workers.problems(max_call_s=1) == ["w: 1 of 1 workers dead"]


async def test_a_tokeniser_that_panics_fails_its_request_and_counts_nothing_on() -> None:
    class Panics(Engine):
        def encode(self, texts: Sequence[str]) -> list[Encoded]:
            if "panic" in texts:
                raise SystemExit
            return super().encode(texts)

    scheduler = batched(Panics())
    assert lengths(await submit(scheduler, "panic")) == [InferenceFailedError.__name__]
    assert scheduler._requests._unqueued == NOTHING
    assert lengths(await submit(scheduler, "fine")) == [4]
    scheduler.close(timeout_s=LATE)


async def test_without_a_thread_to_tokenise_the_request_is_refused_and_not_counted() -> None:
    scheduler = batched(Engine())
    scheduler._tokenising._threads.shutdown()
    with pytest.raises(NotReadyError):
        await submit(scheduler, "x")
    assert scheduler._requests._unqueued == NOTHING
    scheduler.close(timeout_s=LATE)


async def test_measuring_teaches_the_meter_before_the_first_request() -> None:
    engine = Engine()
    scheduler = batched(engine)
    scheduler.measure()
    assert len(engine.batches) == 3
    assert scheduler._requests.meter.predict_s(Work(tokens=10, texts=1)) > 0
    scheduler.close(timeout_s=LATE)


def test_a_text_is_never_estimated_at_more_than_the_window() -> None:
    assert estimate_tokens("x" * 1_000_000, max_tokens=500) == 500
    assert estimate_tokens("xxxx", max_tokens=500) == 3
