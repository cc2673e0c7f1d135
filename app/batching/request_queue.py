"""The requests of one model, from admission to their rows: state shared by threads, with its lock.

Called from the event loop, from the threads that tokenise, and from the workers.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from app.batching.admission import NOTHING, Admission, SpeedMeter, Work
from app.batching.deadline import Deadline
from app.batching.packed_queue import PackedQueue
from app.batching.queue import Batch, BatchQueue, Ticket
from app.batching.requests import QueuedItem, QueuedRequest, Row, Waiter, resolve
from app.core.model_metrics import ModelMetrics
from app.engines.items import Prepared
from app.engines.packing import Packing
from app.engines.stream_slots import UNLOADED
from app.errors import NotReadyError, OverloadedError

if TYPE_CHECKING:
    from app.core.spans import Trace

log = logging.getLogger(__name__)

# Only a bound: a worker is notified of every batch, and of the end.
IDLE_WAIT_S = 30.0
# For how long batches stay smaller after one was too large for the memory.
MEMORY_CAUTION_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPolicy:
    """The bounds of one model's batches and queue."""

    workers: int  # threads that run the engine
    max_batch: int  # texts in a call
    max_batch_tokens: int  # of a call, padding included
    max_queued_tokens: int  # of all that waits
    packing: Packing | None = None  # the rows of a call; None: texts are padded


def _make_queue(policy: BatchPolicy) -> BatchQueue[QueuedItem]:
    """Return the queue that cuts batches as the engine wants them."""
    if policy.packing is not None:
        return PackedQueue(max_count=policy.max_batch, packing=policy.packing)
    return BatchQueue(max_count=policy.max_batch, max_cost=policy.max_batch_tokens)


class RequestQueue:
    """Admits requests, cuts batches of their items, and collects their rows.

    Args:
        name: of the model, for the log.
        policy: the bounds.
        metrics: where everything counts.

    """

    def __init__(self, name: str, *, policy: BatchPolicy, metrics: ModelMetrics) -> None:
        self.meter = SpeedMeter(
            workers=policy.workers,
            max_batch=policy.max_batch,
            max_batch_tokens=policy.packing.tokens if policy.packing else None,
        )
        self._name = name
        self._policy = policy
        self._metrics = metrics
        self._queue: BatchQueue[QueuedItem] = _make_queue(policy)
        metrics.watch_queue(self._queue.__len__)
        self._admission = Admission(self.meter, max_queued_tokens=policy.max_queued_tokens)
        self._changed = threading.Condition()
        self._unqueued = NOTHING  # being tokenised, by estimate
        self._running = NOTHING
        self._caution_until_s = 0.0
        self._is_closed = False
        self.is_traced = False  # whether any request has had a trace

    def admit(  # what is known of a request
        self,
        items: Sequence[Any],
        prompt: str,
        *,
        tokens: int,
        deadline: Deadline,
        waiter: Waiter | None = None,
        trace: "Trace | None" = None,
    ) -> QueuedRequest:
        """Count a request in, or refuse it at once; called on its event loop.

        Args:
            items: of the request.
            prompt: put before each.
            tokens: of all items, estimated.
            deadline: of the request.
            waiter: gets the outcome; None: a new future.
            trace: that it belongs to.

        Raises:
            OverloadedError: it can't be done before the deadline, or the queue is full.
            NotReadyError: the queue is closed.

        """
        estimate = Work(tokens=tokens, texts=len(items))
        with self._changed:
            if self._is_closed:
                raise NotReadyError(UNLOADED, retry_after_s=1)
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
        waiter = waiter or asyncio.get_running_loop().create_future()
        is_alone = not ahead.texts
        now_s = monotonic()
        if trace is not None:
            self.is_traced = True
        return QueuedRequest(
            items,
            prompt,
            waiter,
            estimate,
            verdict.predicted_s,
            now_s,
            is_alone=is_alone,
            until_s=deadline.at_s,
            trace=trace,
        )

    def forget(self, request: QueuedRequest) -> None:
        """Count a request out that was admitted, and will not be queued."""
        with self._changed:
            self._unqueued -= request.estimate

    def enqueue(self, request: QueuedRequest, prepared: Sequence[Prepared | Exception]) -> None:
        """Put the items in the queue; those that failed already have their row."""
        now_s = monotonic()
        with self._changed:
            self._unqueued -= request.estimate
            if request.is_left:
                return
            if self._is_closed:
                prepared = [NotReadyError(UNLOADED, retry_after_s=1) for _ in prepared]
            request.encoded = prepared
            request.rows = [item if isinstance(item, Exception) else None for item in prepared]
            request.is_truncated = [
                not isinstance(item, Exception) and item.is_truncated for item in prepared
            ]
            for index, item in enumerate(prepared):
                if not isinstance(item, Exception):
                    queued = QueuedItem(request, index, item, now_s)
                    request.tickets.append(Ticket(queued, item.cost))
                    request.tokens += item.cost
            request.unfinished = len(request.tickets)
            for ticket in request.tickets:
                self._queue.push(ticket)
            self._changed.notify(len(request.tickets))
        if not request.tickets:
            self._answer([request])

    def leave(self, request: QueuedRequest, *, is_client_gone: bool) -> None:
        """Drop a request: its items that are still queued never reach the engine."""
        with self._changed:
            request.is_left = True
            removed = sum(self._queue.remove(ticket) for ticket in request.tickets)
            running = request.unfinished - removed
            unqueued = 0 if request.rows else len(request.items)
        if is_client_gone:
            self._metrics.cancelled("queued", removed + unqueued)
            self._metrics.cancelled("engine", running)

    def next_batch(self) -> Batch[QueuedItem] | None:
        """Block until there is a batch; None when the queue is closed."""
        with self._changed:
            while not self._is_closed:
                self._end_caution()
                batch = self._queue.cut()
                if batch is not None:
                    self._running += batch.work
                    return batch
                self._changed.wait(IDLE_WAIT_S)
            return None

    def finish(self, batch: Batch[QueuedItem], rows: Sequence[Row]) -> None:
        """Hand out rows; wake the event loop once for all requests that are now complete."""
        complete = []
        with self._changed:
            self._running -= batch.work
            for ticket, row in zip(batch.tickets, rows, strict=True):
                request = ticket.item.request
                request.rows[ticket.item.index] = row
                request.unfinished -= 1
                if request.unfinished == 0 and not request.is_left:
                    complete.append(request)
        if complete:
            self._answer(complete)

    def _answer(self, requests: Sequence[QueuedRequest]) -> None:
        """Resolve futures on the event loop that they belong to."""
        loop = requests[0].future.get_loop()
        try:
            loop.call_soon_threadsafe(resolve, requests)
        except RuntimeError:
            log.debug("loop_closed", extra={"model": self._name})  # its requests are gone with it

    def observe(self, batch: Batch[QueuedItem], *, seconds: float) -> None:
        """Learn how quick the engine is from a call."""
        with self._changed:
            self.meter.observe(tokens=batch.tokens, seconds=seconds)

    def note_out_of_memory(self, count: int) -> None:
        """Cut smaller batches for a while, after a call of so many texts lacked memory."""
        with self._changed:
            self._queue.max_count = max(1, min(self._queue.max_count, count // 2))
            self._caution_until_s = monotonic() + MEMORY_CAUTION_S
        self._metrics.out_of_memory()
        log.warning("batch_too_large", extra={"model": self._name, "texts": count})

    def _end_caution(self) -> None:
        if self._queue.max_count < self._policy.max_batch and monotonic() > self._caution_until_s:
            self._queue.max_count = self._policy.max_batch

    def close(self) -> None:
        """Refuse new requests, and answer those that wait now, not at their deadline."""
        with self._changed:
            self._is_closed = True
            waiting = list(iter(self._queue.cut, None))
            for batch in waiting:
                self._running += batch.work
            self._changed.notify_all()
        for batch in waiting:
            self.finish(batch, [NotReadyError(UNLOADED, retry_after_s=1) for _ in batch.tickets])
