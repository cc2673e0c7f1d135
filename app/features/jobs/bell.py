"""Telling workers that there may be work."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from app.core.throttle import Throttle
from app.features.jobs.celery import QUEUE, TASK, make_celery
from app.features.jobs.metrics import JobMetrics

log = logging.getLogger(__name__)

MAX_MESSAGES = 1_000  # each wakes a worker for one slice of a job


class Bell(Protocol):
    """What wakes workers."""

    async def ring(self) -> None:
        """Wake a worker, soon; returns at once, and never raises."""
        ...


class CeleryBell:
    """Sends a message through Celery, in a thread of its own.

    A ring that nobody hears is counted and forgotten: `JobKeeper` rings again for jobs that wait.

    Args:
        redis_url: as in REDIS_URL.
        metrics: where failures count.
        max_messages: that may lie there; nobody has so many workers.

    """

    def __init__(
        self, redis_url: str, *, metrics: JobMetrics, max_messages: int = MAX_MESSAGES
    ) -> None:
        self._celery = make_celery(redis_url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bell")
        self._failures = metrics.bell_failures
        self._max_messages = max_messages
        self._is_waiting = False
        self._throttle = Throttle()
        self.is_heard = True

    async def ring(self) -> None:
        """As the protocol says."""
        # A ring that hasn't begun comes after this call's commit too.
        if not self._is_waiting:
            self._is_waiting = True
            asyncio.get_running_loop().run_in_executor(self._thread, self.ring_now)

    def ring_now(self) -> None:
        """Ring in this thread; returns when the broker has it, or in the end hasn't."""
        self._is_waiting = False
        try:
            with self._celery.connection_for_write() as connection:
                if connection.default_channel.client.llen(QUEUE) < self._max_messages:
                    self._celery.send_task(TASK, queue=QUEUE, retry=False, connection=connection)
        except (OSError, KombuError, RedisError) as failure:
            self._failed(failure)
        else:
            self.is_heard = True

    def close(self) -> None:
        """Stop; what was not rung yet is rung by another process's keeper, or at the next start."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _failed(self, failure: Exception) -> None:
        self._failures.inc()
        self.is_heard = False
        if self._throttle.passes():
            # Messages of the client name the host, and may quote the URL.
            log.warning("bell_not_heard", extra={"error": type(failure).__name__})
