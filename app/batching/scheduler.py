"""Threads around the batch queue: items come from the event loop, rows go back to it."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from app.batching.batch_trace import BatchTrace, begin_batch
from app.batching.deadline import Deadline
from app.batching.isolation import is_out_of_memory, run_isolated
from app.batching.queue import Batch
from app.batching.request_queue import BatchPolicy, RequestQueue
from app.batching.requests import (
    Outcome,
    QueuedItem,
    QueuedRequest,
    Row,
    Waiter,
    scope_of,
)
from app.batching.tokenising import Tokenising, estimator
from app.batching.workers import Workers
from app.core.call_scope import in_scope
from app.core.metrics import Metrics
from app.core.model_metrics import ModelMetrics
from app.core.tracing import current
from app.engines.base import TextEngine
from app.engines.items import BatchEngine, ItemEngine, Prepared, ProcessEngine, calls_models
from app.engines.rows import checked
from app.errors import DeadlineExceededError, InferenceFailedError, NotReadyError

if TYPE_CHECKING:
    from app.core.spans import Trace

log = logging.getLogger(__name__)

E = TypeVar("E", bound=BatchEngine)
REMOTE = "remote"  # the kind of engines behind which another server computes
# Short, longer, and a batch of both: enough to tell a call's cost from a token's.
MEASURE_TEXTS = ("good", "a sentence of the usual length, as people write them in reviews " * 3) * 4


class BatchScheduler(Generic[E]):
    """Runs items in batches: no timer, a batch is whatever queued while the engine was busy.

    `submit` is called on the event loop; items are prepared (texts: tokenised) in `tokenisers` and
    queued from there, so that the loop is woken once a batch, by the worker that has its rows.

    Args:
        name: of the model, for metrics and threads.
        engine: called in `policy.workers` threads at once; closed with the scheduler.
        policy: the bounds.
        tokenisers: threads in which items are prepared.
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
        self._estimate = estimator(engine)
        self._max_batch = policy.max_batch
        self._calls_models = calls_models(engine)
        self._metrics = ModelMetrics(metrics, name)
        self._name = name
        self._requests = RequestQueue(name, policy=policy, metrics=self._metrics)
        self._tokenising = Tokenising(engine, tokenisers, done=self._requests.enqueue, name=name)
        self._workers: Workers[Batch[QueuedItem]] = Workers(
            name,
            count=policy.workers,
            take=self._requests.next_batch,
            do=self._run_batch,
            on_death=self._metrics.worker_died,
            on_end=self._requests.close,
        )

    async def submit(
        self, items: Sequence[Any], *, deadline: Deadline, prompt: str = ""
    ) -> Outcome:
        """Run items; returns when all of them are done.

        Args:
            items: to run: texts, where the engine is for texts.
            deadline: when the answer is of no use any more.
            prompt: put before each text, for an embedder.

        Raises:
            OverloadedError: they can't be done before the deadline, or the queue is full.
            DeadlineExceededError: the deadline passed before they were.
            NotReadyError: the scheduler is closed.

        """
        tokens = self._estimate(items, prompt)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        request = self._requests.admit(
            items, prompt, tokens=tokens, deadline=deadline, waiter=future, trace=current()
        )
        self._hand_over(request)
        try:
            async with asyncio.timeout(deadline.remaining_s):
                outcome = await future
        except TimeoutError:
            self.leave(request, is_client_gone=False)
            self._metrics.refused("deadline")
            raise DeadlineExceededError from None
        except asyncio.CancelledError:
            self.leave(request, is_client_gone=True)
            raise
        self.note_answered(request)
        return outcome

    def submit_prepared(
        self,
        items: Sequence[Prepared],
        *,
        deadline: Deadline,
        waiter: Waiter,
        trace: "Trace | None" = None,
    ) -> QueuedRequest:
        """Run items that another process has prepared; called on the event loop of the waiter.

        Who waits for the outcome says so when it has come (`note_answered`), or leaves.

        Raises:
            OverloadedError, NotReadyError: as `submit`.

        """
        tokens = sum(item.cost for item in items)
        request = self._requests.admit(
            items, "", tokens=tokens, deadline=deadline, waiter=waiter, trace=trace
        )
        self._requests.enqueue(request, items)
        return request

    def leave(self, request: QueuedRequest, *, is_client_gone: bool) -> None:
        """Drop a request: its items that are still queued never reach the engine."""
        self._requests.leave(request, is_client_gone=is_client_gone)

    def note_answered(self, request: QueuedRequest) -> None:
        """Measure how long a request took, whose outcome has come."""
        seconds = monotonic() - request.admitted_s
        exemplar = None if request.trace is None else request.trace.exemplar
        self._metrics.answered(predicted_s=request.predicted_s, seconds=seconds, exemplar=exemplar)

    def _hand_over(self, request: QueuedRequest) -> None:
        """Have the items prepared, in another thread unless that takes longer.

        Raises:
            NotReadyError: there is no thread for it.

        """
        if self._tokenising.is_quick(request):
            self._tokenising.run_now(request)
            return
        try:
            self._tokenising.put(request)
        except RuntimeError as failure:  # shut down, or the system has no thread left
            self._requests.forget(request)
            raise NotReadyError(
                "There is no thread to prepare items in.", retry_after_s=1
            ) from failure

    def _run_batch(self, batch: Batch[QueuedItem]) -> None:
        """Run the engine in a worker's thread, isolate what fails, hand out the rows."""
        trace = self._begin_batch(batch) if self._requests.is_traced else None
        try:
            with self._scope_of(batch):
                rows = self._call_engine(batch, trace)
        except BaseException as failure:
            if trace is not None:
                trace.end(failure)
            # A fault of ours kills the worker; its requests are answered first.
            self._requests.finish(batch, [InferenceFailedError() for _ in batch.tickets])
            raise
        if trace is not None:
            trace.end()
        self._requests.finish(batch, rows)

    def _begin_batch(self, batch: Batch[QueuedItem]) -> BatchTrace | None:
        calls_others = self._calls_models or self.engine.kind == REMOTE
        return begin_batch(batch, self._name, calls_others=calls_others)

    def _scope_of(self, batch: Batch[QueuedItem]) -> AbstractContextManager[None]:
        """Return what tells an engine that calls other models for whom it does."""
        if not self._calls_models:
            return nullcontext()
        requests = dict.fromkeys(ticket.item.request for ticket in batch.tickets)
        return in_scope(scope_of(list(requests)))

    def _call_engine(self, batch: Batch[QueuedItem], trace: BatchTrace | None) -> Sequence[Row]:
        run = self._run_list if trace is None else partial(trace.run, self._run_list)
        started_s = monotonic()
        rows = run_isolated(
            run,
            [ticket.item.prepared for ticket in batch.tickets],
            on_failure=self._note_failure,
        )
        seconds = monotonic() - started_s
        if not any(isinstance(row, Exception) for row in rows):
            # The time of calls that were repeated in halves doesn't show how quick the engine is.
            self._requests.observe(batch, seconds=seconds)
        waits_s = [started_s - ticket.item.queued_s for ticket in batch.tickets]
        self._metrics.batch(waits_s=waits_s, cost=batch.cost, tokens=batch.tokens, seconds=seconds)
        return rows

    def _run_list(self, prepared: Sequence[Prepared]) -> list[Row]:
        return list(self._run(prepared))

    def _note_failure(self, failure: Exception, count: int) -> None:
        """After a call of several texts that lacked memory, have smaller batches cut."""
        if is_out_of_memory(failure) and count > 1:
            self._requests.note_out_of_memory(count)

    def measure(self) -> None:
        """Learn how quick the engine is before the first request; blocks for a few calls.

        An engine of items that aren't texts shows it with its first requests.
        """
        if not isinstance(self.engine, TextEngine):
            return
        for texts in (MEASURE_TEXTS[:1], MEASURE_TEXTS[1:2], MEASURE_TEXTS):
            encoded = self.engine.encode(texts[: self._max_batch])
            started_s = monotonic()
            rows = run_isolated(lambda some: list(self._run(some)), encoded)
            if not any(isinstance(row, Exception) for row in rows):
                tokens = sum(item.cost for item in encoded)
                self._requests.meter.observe(tokens=tokens, seconds=monotonic() - started_s)

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is dead or stuck, for `/health`; empty when all is well.

        A call in a process of its own is ended at its time-out, and the process replaced. However
        long it takes, to end this process too would only harm other models. A call of a remote
        server ends by its own time-out too.
        """
        if self._runs_apart or self.engine.kind == REMOTE:
            max_call_s = inf
        problems = self._workers.problems(max_call_s=max_call_s)
        if isinstance(self.engine, ItemEngine):
            problems += [f"{self._name}: {problem}" for problem in self.engine.problems()]
        return problems

    def longest_call_s(self) -> float:
        """Return for how long the oldest running call has been running; 0 when none is."""
        return self._workers.longest_call_s()

    @property
    def can_close_early(self) -> bool:
        """Whether `close` is safe while calls and streams run; they end, or keep their memory."""
        return isinstance(self.engine, ProcessEngine)

    @property
    def _runs_apart(self) -> bool:
        engine = self.engine
        return isinstance(engine, ProcessEngine) and engine.processes() is not None

    def close(self, *, timeout_s: float) -> None:
        """Stop the workers after their batch and close the engine.

        An engine that is still running after `timeout_s` is left to the end of the process where
        taking its memory away could crash it.
        """
        self._requests.close()
        has_ended = self._workers.join(timeout_s=timeout_s)
        if has_ended or self.can_close_early:
            self.engine.close()
        if not has_ended and not self._runs_apart:
            log.warning("engine_still_running", extra={"model": self._name})
