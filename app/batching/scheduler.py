"""Threads around the batch queue: texts come from the event loop, rows go back to it."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from app.batching.admission import NOTHING, Admission, SpeedMeter, Work
from app.batching.deadline import Deadline
from app.batching.isolation import is_out_of_memory, run_isolated
from app.batching.queue import Batch, BatchQueue, Ticket
from app.batching.workers import Workers
from app.core.logs import is_private
from app.core.metrics import Metrics
from app.core.model_metrics import ModelMetrics
from app.engines.base import Embedder, Encoded, TextEngine
from app.engines.rows import checked
from app.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    NotReadyError,
    OverloadedError,
    TextWithoutTokensError,
)

log = logging.getLogger(__name__)

Row = Any  # what the engine gives for a text, or the exception in its place
E = TypeVar("E", bound=TextEngine)
# English has about 4.5 characters a token; rather too many tokens than too few.
CHARS_PER_TOKEN = 4
SPECIAL_TOKENS = 2
UNLOADING = "The model is being unloaded."
# Short, longer, and a batch of both: enough to tell a call's cost from a token's.
MEASURE_TEXTS = ("good", "a sentence of the usual length, as people write them in reviews " * 3) * 4
# Only a bound: a worker is told of every batch, and of the end.
IDLE_WAIT_S = 30.0
# For how long a batch that was too large for the memory keeps the bound down.
MEMORY_CAUTION_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """The bounds of one model's batches and queue."""

    workers: int  # threads that run the engine
    max_batch: int  # texts in a call
    max_batch_tokens: int  # longest times count of a call
    max_queued_tokens: int  # of all that waits


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The rows of a request's texts, in their order; an exception where one failed alone."""

    rows: list[Row]
    is_truncated: list[bool]
    tokens: int  # of all texts, as far as the engine saw them


@dataclass(slots=True, eq=False)
class _Request:
    """Texts that are answered together. Guarded by the scheduler's lock once they are queued."""

    texts: Sequence[str]
    prompt: str
    future: asyncio.Future[Outcome]
    estimate: Work  # before its tokens are counted
    predicted_s: float
    admitted_s: float
    tickets: list[Ticket["_Place"]] = field(default_factory=list)
    rows: list[Row | None] = field(default_factory=list)
    is_truncated: list[bool] = field(default_factory=list)
    tokens: int = 0
    unfinished: int = 0
    is_left: bool = False


@dataclass(slots=True, eq=False)
class _Place:
    """One text of a request, as a ticket carries it."""

    request: _Request
    index: int
    encoded: Encoded
    queued_s: float


class BatchScheduler(Generic[E]):
    """Runs texts in batches: no timer, a batch is whatever queued while the engine was busy.

    `submit` is called on the event loop; texts are tokenised in `tokenisers` and queued from
    there, so that the loop is woken once a batch, by the worker that has its rows.

    Args:
        name: of the model, for metrics and threads.
        engine: called in `policy.workers` threads at once; closed with the scheduler.
        policy: the bounds.
        tokenisers: threads in which texts are tokenised.
        metrics: where everything counts.

    """

    def __init__(
        self,
        name: str,
        *,
        engine: E,
        policy: BatchPolicy,
        tokenisers: Executor,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self._run = checked(engine)
        self._policy = policy
        self._tokenisers = tokenisers
        self._metrics = ModelMetrics(metrics, name)
        self._name = name
        self._queue: BatchQueue[_Place] = BatchQueue(
            max_count=policy.max_batch, max_cost=policy.max_batch_tokens
        )
        self._meter = SpeedMeter(workers=policy.workers, max_batch=policy.max_batch)
        self._admission = Admission(self._meter, max_queued_tokens=policy.max_queued_tokens)
        self._changed = threading.Condition()
        self._unqueued = NOTHING  # being tokenised, by estimate
        self._running = NOTHING
        self._caution_until_s = 0.0
        self._is_closed = False
        self._workers: Workers[Batch[_Place]] = Workers(
            name,
            count=policy.workers,
            take=self._next_batch,
            do=self._run_batch,
            on_death=self._metrics.worker_died,
            on_end=self._stop_taking,
        )

    async def submit(
        self, texts: Sequence[str], *, deadline: Deadline, prompt: str = ""
    ) -> Outcome:
        """Run texts; returns when all of them are done.

        Args:
            texts: to run.
            deadline: when the answer is of no use any more.
            prompt: put before each text, for an embedder.

        Raises:
            OverloadedError: they can't be done before the deadline, or the queue is full.
            DeadlineExceededError: the deadline passed all the same.
            NotReadyError: the scheduler is closed.

        """
        request = self._admit(texts, prompt, deadline)
        self._hand_over(request)
        try:
            async with asyncio.timeout(deadline.remaining_s):
                outcome = await request.future
        except TimeoutError:
            self._leave(request, is_client_gone=False)
            self._metrics.refused("deadline")
            raise DeadlineExceededError from None
        except asyncio.CancelledError:
            self._leave(request, is_client_gone=True)
            raise
        seconds = monotonic() - request.admitted_s
        self._metrics.answered(predicted_s=request.predicted_s, seconds=seconds)
        return outcome

    def _admit(self, texts: Sequence[str], prompt: str, deadline: Deadline) -> _Request:
        """Refuse what has no chance, on the loop and at once."""
        tokens = sum(self._estimate(text, prompt) for text in texts)
        estimate = Work(tokens=tokens, texts=len(texts))
        with self._changed:
            if self._is_closed:
                raise NotReadyError(UNLOADING, retry_after_s=1)
            queued = Work(tokens=self._queue.cost, texts=len(self._queue))
            ahead = queued + self._unqueued + self._running
            verdict = self._admission.judge(
                ahead=ahead, own=estimate, remaining_s=deadline.remaining_s
            )
            if verdict.is_admitted:
                self._unqueued += estimate
        if not verdict.is_admitted:
            self._metrics.refused("overloaded")
            raise OverloadedError(retry_after_s=verdict.retry_after_s)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        return _Request(texts, prompt, future, estimate, verdict.predicted_s, monotonic())

    def _estimate(self, text: str, prompt: str = "") -> int:
        """Return about how many tokens a text has; never more than the engine's window."""
        chars = len(prompt) + len(text)
        return min(chars // CHARS_PER_TOKEN + SPECIAL_TOKENS, self.engine.max_tokens)

    def _hand_over(self, request: _Request) -> None:
        """Have the texts tokenised; without a thread for it, nothing stays counted."""
        try:
            self._tokenisers.submit(self._tokenise, request)
        except RuntimeError as failure:  # shut down, or the system has no thread left
            with self._changed:
                self._unqueued -= request.estimate
            raise NotReadyError(
                "There is no thread to tokenise with.", retry_after_s=1
            ) from failure

    def _tokenise(self, request: _Request) -> None:
        """Tokenise in a thread of `tokenisers`; whatever happens there, the request is told."""
        is_private.set(True)  # the variable's name says it
        encoded: list[Encoded | Exception] = []
        try:
            if not request.is_left:
                encoded = [
                    # Alone it would fail, and in a batch it would be answered with its padding.
                    TextWithoutTokensError() if isinstance(e, Encoded) and e.is_empty else e
                    for e in run_isolated(self._encode(request.prompt), request.texts)
                ]
        except BaseException:
            # A panic of a native tokeniser is no Exception.
            log.critical("tokeniser_died", exc_info=True, extra={"model": self._name})
            encoded = [InferenceFailedError() for _ in request.texts]
        finally:
            self._enqueue(request, encoded)

    def _encode(self, prompt: str) -> Callable[[Sequence[str]], list[Encoded]]:
        return (
            partial(cast("Embedder", self.engine).encode, prompt=prompt)
            if prompt
            else self.engine.encode
        )

    def _enqueue(self, request: _Request, encoded: Sequence[Encoded | Exception]) -> None:
        """Put the texts in the queue; those that failed already have their row."""
        now_s = monotonic()
        with self._changed:
            self._unqueued -= request.estimate
            if request.is_left:
                return
            if self._is_closed:
                encoded = [NotReadyError(UNLOADING, retry_after_s=1) for _ in encoded]
            request.rows = [item if isinstance(item, Exception) else None for item in encoded]
            request.is_truncated = [isinstance(e, Encoded) and e.is_truncated for e in encoded]
            for index, item in enumerate(encoded):
                if isinstance(item, Encoded):
                    place = _Place(request, index, item, now_s)
                    request.tickets.append(Ticket(place, item.cost))
                    request.tokens += item.cost
            request.unfinished = len(request.tickets)
            for ticket in request.tickets:
                self._queue.push(ticket)
            self._metrics.queue_depth(len(self._queue))
            self._changed.notify(len(request.tickets))
        if not request.tickets:
            self._answer([request])

    def _leave(self, request: _Request, *, is_client_gone: bool) -> None:
        """Nobody waits for this request any more: what the engine hasn't got, it never gets."""
        with self._changed:
            request.is_left = True
            removed = sum(self._queue.remove(ticket) for ticket in request.tickets)
            running = request.unfinished - removed
            unqueued = 0 if request.rows else len(request.texts)
            self._metrics.queue_depth(len(self._queue))
        if is_client_gone:
            self._metrics.cancelled("queued", removed + unqueued)
            self._metrics.cancelled("engine", running)

    def _next_batch(self) -> Batch[_Place] | None:
        """Block until there is a batch."""
        with self._changed:
            while not self._is_closed:
                self._end_caution()
                batch = self._queue.cut()
                if batch is not None:
                    self._running += batch.work
                    self._metrics.queue_depth(len(self._queue))
                    return batch
                self._changed.wait(IDLE_WAIT_S)
            return None

    def _run_batch(self, batch: Batch[_Place]) -> None:
        """Run the engine in a worker's thread, isolate what fails, send the rows on their way."""
        try:
            rows = self._call_engine(batch)
        except BaseException:
            # A fault of ours: the worker dies of it, and its waiters are told before it does.
            self._finish(batch, [InferenceFailedError() for _ in batch.tickets])
            raise
        self._finish(batch, rows)

    def _call_engine(self, batch: Batch[_Place]) -> Sequence[Row]:
        started_s = monotonic()
        rows = run_isolated(
            lambda encoded: list(self._run(encoded)),
            [ticket.item.encoded for ticket in batch.tickets],
            on_failure=self._note_failure,
        )
        seconds = monotonic() - started_s
        if not any(isinstance(row, Exception) for row in rows):
            # Calls that were repeated in halves say nothing of how quick the engine is.
            with self._changed:
                self._meter.observe(tokens=batch.tokens, seconds=seconds)
        waits_s = [started_s - ticket.item.queued_s for ticket in batch.tickets]
        self._metrics.batch(waits_s=waits_s, cost=batch.cost, tokens=batch.tokens, seconds=seconds)
        return rows

    def _finish(self, batch: Batch[_Place], rows: Sequence[Row]) -> None:
        """Hand out rows; wake the loop once for all requests that are complete with them."""
        done = []
        with self._changed:
            self._running -= batch.work
            for ticket, row in zip(batch.tickets, rows, strict=True):
                request = ticket.item.request
                request.rows[ticket.item.index] = row
                request.unfinished -= 1
                if request.unfinished == 0 and not request.is_left:
                    done.append(request)
        if done:
            self._answer(done)

    def _answer(self, done: Sequence[_Request]) -> None:
        """Resolve futures on the loop that they belong to."""
        loop = done[0].future.get_loop()
        try:
            loop.call_soon_threadsafe(_resolve, done)
        except RuntimeError:
            log.debug("loop_closed", extra={"model": self._name})  # its requests are gone with it

    def _note_failure(self, failure: Exception, count: int) -> None:
        """Count a failed call; after one for lack of memory, cut smaller batches for a while."""
        if not is_out_of_memory(failure) or count == 1:
            return
        with self._changed:
            self._queue.max_count = max(1, min(self._queue.max_count, count // 2))
            self._caution_until_s = monotonic() + MEMORY_CAUTION_S
        self._metrics.out_of_memory()
        log.warning("batch_too_large", extra={"model": self._name, "texts": count})

    def _end_caution(self) -> None:
        if self._queue.max_count < self._policy.max_batch and monotonic() > self._caution_until_s:
            self._queue.max_count = self._policy.max_batch

    def _stop_taking(self) -> None:
        """Refuse what comes, and tell those who wait now, not at their deadline."""
        with self._changed:
            self._is_closed = True
            waiting = list(iter(self._queue.cut, None))
            for batch in waiting:
                self._running += batch.work
            self._changed.notify_all()
        for batch in waiting:
            self._finish(batch, [NotReadyError(UNLOADING, retry_after_s=1) for _ in batch.tickets])

    def measure(self) -> None:
        """Learn how quick the engine is before the first request; blocks for a few calls."""
        for texts in (MEASURE_TEXTS[:1], MEASURE_TEXTS[1:2], MEASURE_TEXTS):
            encoded = self.engine.encode(texts[: self._policy.max_batch])
            started_s = monotonic()
            rows = run_isolated(lambda some: list(self._run(some)), encoded)
            if not any(isinstance(row, Exception) for row in rows):
                tokens = sum(item.cost for item in encoded)
                self._meter.observe(tokens=tokens, seconds=monotonic() - started_s)

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is dead or stuck, for `/health`; empty when all is well."""
        return self._workers.problems(max_call_s=max_call_s)

    def longest_call_s(self) -> float:
        """Return for how long the oldest running call has been running; 0 when none is."""
        return self._workers.longest_call_s()

    def close(self, *, timeout_s: float) -> None:
        """Stop the workers after their batch and close the engine.

        An engine that is still running after `timeout_s` is left to the end of the process:
        taking its memory away could crash it.
        """
        self._stop_taking()
        if self._workers.join(timeout_s=timeout_s):
            self.engine.close()
        else:
            log.warning("engine_still_running", extra={"model": self._name})


def _resolve(done: Sequence[_Request]) -> None:
    """Give each request its rows; one that was cancelled meanwhile is passed over."""
    for request in done:
        if not request.future.done():
            rows = [row for row in request.rows if row is not None]
            request.future.set_result(
                Outcome(rows=rows, is_truncated=request.is_truncated, tokens=request.tokens)
            )
