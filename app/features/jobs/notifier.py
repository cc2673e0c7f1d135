"""How workers are notified that there may be work."""

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


class JobNotifier(Protocol):
    """Wakes workers."""

    async def notify(self) -> None:
        """Wake a worker, soon; returns at once, and never raises."""
        ...


class CeleryNotifier:
    """Sends a message through Celery, in a thread of its own.

    A message that can't be sent is counted and dropped: `JobSupervisor` sends another for jobs that
    wait.

    Args:
        redis_url: as in REDIS_URL.
        metrics: where failures count.
        max_messages: no more are sent while the queue has so many.

    """

    def __init__(
        self, redis_url: str, *, metrics: JobMetrics, max_messages: int = MAX_MESSAGES
    ) -> None:
        self._celery = make_celery(redis_url)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="job-notifier")
        self._failures = metrics.bell_failures
        self._max_messages = max_messages
        self._is_waiting = False
        self._throttle = Throttle()
        self.is_reachable = True

    async def notify(self) -> None:
        """As the protocol says."""
        # A call that waits for the thread is sent after this call's commit too, so one is enough.
        if not self._is_waiting:
            self._is_waiting = True
            asyncio.get_running_loop().run_in_executor(self._thread, self.notify_now)

    def notify_now(self) -> None:
        """Send in this thread; returns when the broker has the message, or sending has failed."""
        self._is_waiting = False
        try:
            with self._celery.connection_for_write() as connection:
                if connection.default_channel.client.llen(QUEUE) < self._max_messages:
                    self._celery.send_task(TASK, queue=QUEUE, retry=False, connection=connection)
        except (OSError, KombuError, RedisError) as failure:
            self._failed(failure)
        else:
            self.is_reachable = True

    def close(self) -> None:
        """Stop; what was not sent is left to another supervisor or the next start."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _failed(self, failure: Exception) -> None:
        self._failures.inc()
        self.is_reachable = False
        if self._throttle.passes():
            # Messages of the client name the host, and may quote the URL.
            log.warning("bell_not_heard", extra={"error": type(failure).__name__})
