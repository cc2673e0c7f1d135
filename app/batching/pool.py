"""A named, bounded thread pool for blocking engine calls."""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from app.batching.deadline import Deadline
from app.errors import DeadlineExceededError, NotReadyError, OverloadedError
from app.observability.metrics import Metrics

Result = TypeVar("Result")
# Weight of the newest call in the running mean of call times; forgets in about 20 calls.
MEAN_WEIGHT = 0.1


@dataclass(slots=True, eq=False)
class _Ticket:
    """One call on its way through the pool."""

    queued_s: float
    started_s: float | None = None
    is_abandoned: bool = False


class InferencePool:
    """Runs calls in threads named `inference-n`; at most `max_waiting` wait for one.

    Made and used on the event loop; the counters are shared with the threads under a lock.
    """

    def __init__(self, *, threads: int, max_waiting: int, metrics: Metrics) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="inference")
        self._threads = threads
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._lock = threading.Lock()
        self._waiting = 0
        self._running: set[_Ticket] = set()
        self._futures: set[asyncio.Future[Any]] = set()
        self._mean_call_s = 0.0

    async def run(
        self, call: Callable[[], Result], *, deadline: Deadline, on_done: Callable[[], None]
    ) -> Result:
        """Run a blocking call in a thread.

        Args:
            call: what to run.
            deadline: how long the answer is of use; a call still queued then is never run.
            on_done: called once, on the loop, when the call has ended or is refused. That may be
                later than this returns: a call that runs past its deadline can't be stopped.

        Raises:
            OverloadedError: `max_waiting` calls wait already.
            DeadlineExceededError: the deadline passed first.

        """
        ticket = _Ticket(queued_s=time.monotonic())
        try:
            self._admit()
        except OverloadedError:
            on_done()
            raise
        future = asyncio.get_running_loop().run_in_executor(
            self._executor, self._work, ticket, call
        )
        self._futures.add(future)

        def settle(done: asyncio.Future[Result]) -> None:
            self._futures.discard(done)
            if not done.cancelled():
                done.exception()  # seen: a call past its deadline has nobody to tell
            on_done()

        future.add_done_callback(settle)
        try:
            # The shield keeps `future` alive, so that on_done waits for the thread.
            return await asyncio.wait_for(asyncio.shield(future), deadline.remaining_s)
        except TimeoutError:
            self._metrics.refused.labels("deadline").inc()
            raise DeadlineExceededError from None
        except asyncio.CancelledError:
            if future.cancelled():  # by close(), before a thread took it
                raise NotReadyError("The service is shutting down.") from None
            raise
        finally:
            self._abandon(ticket)

    def _admit(self) -> None:
        """Count a call in, or refuse it."""
        with self._lock:
            waiting = self._waiting
            if waiting < self._max_waiting:
                self._waiting += 1
                self._metrics.queue_depth.set(self._waiting)
                return
        self._metrics.refused.labels("queue_full").inc()
        raise OverloadedError(retry_after_s=self._clearing_s(waiting))

    def _clearing_s(self, waiting: int) -> int:
        """Return the whole seconds in which so many waiting calls will have been run."""
        return max(1, math.ceil(waiting * self._mean_call_s / self._threads))

    def _abandon(self, ticket: _Ticket) -> None:
        """Nobody waits for this ticket any more: if it hasn't started, it never will."""
        with self._lock:
            if ticket.started_s is None:
                ticket.is_abandoned = True
                self._waiting -= 1
                self._metrics.queue_depth.set(self._waiting)

    def _work(self, ticket: _Ticket, call: Callable[[], Result]) -> Result:
        """Run one call in a thread of the pool."""
        with self._lock:
            if ticket.is_abandoned:
                raise DeadlineExceededError  # nobody reads this
            ticket.started_s = time.monotonic()
            self._waiting -= 1
            self._running.add(ticket)
            self._metrics.queue_depth.set(self._waiting)
        self._metrics.queue_wait_seconds.observe(ticket.started_s - ticket.queued_s)
        try:
            return call()
        finally:
            self._finish(ticket, time.monotonic() - ticket.started_s)

    def _finish(self, ticket: _Ticket, seconds: float) -> None:
        with self._lock:
            self._running.discard(ticket)
            self._mean_call_s += MEAN_WEIGHT * (seconds - self._mean_call_s)

    def longest_call_s(self) -> float:
        """Return for how long the oldest running call has been running; 0 when none is."""
        with self._lock:
            started = [ticket.started_s or 0.0 for ticket in self._running]
        return time.monotonic() - min(started) if started else 0.0

    async def close(self, *, timeout_s: float) -> None:
        """Refuse new calls and wait for the running ones, but not for longer than this."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._futures:
            await asyncio.wait(self._futures, timeout=timeout_s)
