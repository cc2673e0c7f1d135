"""Sees to jobs behind everybody's back: dead workers, lost bells, news, gauges."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from app.core.background import run_in_background
from app.core.throttle import Throttle
from app.db.session import Database
from app.errors import DatabaseUnavailableError
from app.features.jobs.bell import Bell
from app.features.jobs.leases import JobLeases
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.repository import JobRepository
from app.features.jobs.values import FINAL, Job, JobStatus, Waiting

log = logging.getLogger(__name__)

REAPED_AT_ONCE = 100
ANNOUNCED_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperPolicy:
    """When the keeper does what.

    Args:
        retry: what becomes of a job whose worker died.
        every_s: between two looks; a job that is due sooner is rung for on time.
        patience_s: how long a job may wait before the bell is rung for it again.
        ring_again_s: between two such rings: workers may be busy, and each ring is a message.
        tell_every_s: between two log lines of what waits.

    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    every_s: float = 2.0
    patience_s: float = 3.0
    ring_again_s: float = 10.0
    tell_every_s: float = 60.0


class JobKeeper:
    """Keeps jobs going; every service process has one, and any number may work at once.

    Args:
        database: where the jobs are.
        bell: rung for jobs that nobody came for; None: there is none.
        metrics: where jobs count.
        policy: when it does what.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        database: Database,
        *,
        bell: Bell | None,
        metrics: JobMetrics,
        policy: KeeperPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._bell = bell
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        self._is_failing = False
        self._rung_at_s = -policy.ring_again_s
        self._due_at_s: float | None = None  # when a job that has to pause is due
        self._throttle = Throttle(policy.tell_every_s, clock=clock)
        self._throttle.restart()
        # Alerts see an increase only of a series that was there before.
        for status in FINAL:
            metrics.jobs.labels(status)

    def running(
        self, *, after: Callable[[], Awaitable[object]]
    ) -> AbstractAsyncContextManager[object]:
        """Keep jobs during a block, from a moment on: before it there may be no tables."""
        return run_in_background(self._run, name="job_keeper", after=after)

    async def look(self) -> float:
        """Do all that is to be done now; return in how many seconds to look again.

        A failure is logged once, until it works again.
        """
        try:
            # It says so itself when it is away, or its tables aren't there yet.
            if await self._database.check(timeout_s=self._database.timeout_s) is None:
                await self._keep()
            self._is_failing = False
        except DatabaseUnavailableError:
            pass
        except Exception as failure:
            # The next look may do better, and must come: nothing else finds dead workers.
            if not self._is_failing:
                log.exception("job_keeper_failed", extra={"error": type(failure).__name__})
            self._is_failing = True
        if self._due_at_s is None:
            return self._policy.every_s
        return min(self._policy.every_s, max(0.0, self._due_at_s - self._clock()))

    async def _run(self) -> None:
        while True:
            pause_s = await self.look()
            await asyncio.sleep(pause_s)

    async def _keep(self) -> None:
        reaped = await self._reap()
        waiting = await self._database.read(lambda session: JobRepository(session).waiting())
        self._metrics.jobs_queued.set(waiting.queued)
        self._metrics.jobs_oldest_waiting_seconds.set(waiting.oldest_s)
        await self._ring(waiting, has_reaped=reaped > 0)
        await self._announce()
        self._tell(waiting)

    async def _reap(self) -> int:
        """Give the jobs of silent workers away; return how many."""
        reaped = await self._database.run(
            lambda session: JobLeases(session).reap(policy=self._policy.retry, limit=REAPED_AT_ONCE)
        )
        for job in reaped:
            self._metrics.jobs_reaped.inc()
            self._metrics.job_attempts.labels("worker_lost").inc()
            log.warning("job_reaped", extra=_said(job) | {"attempts": job.attempts})
        return len(reaped)

    async def _ring(self, waiting: Waiting, *, has_reaped: bool) -> None:
        """Ring where a ring was lost, or nobody was there to ring."""
        at_s = self._clock()
        has_come = self._due_at_s is not None and at_s >= self._due_at_s
        self._due_at_s = None if waiting.next_due_s is None else at_s + waiting.next_due_s
        is_late = waiting.oldest_s > self._policy.patience_s
        is_late = is_late and at_s - self._rung_at_s >= self._policy.ring_again_s
        if self._bell is not None and waiting.due and (has_reaped or has_come or is_late):
            self._rung_at_s = at_s
            await self._bell.ring()

    async def _announce(self) -> None:
        """Tell of finished jobs, once each, whichever process does."""
        while True:
            finished = await self._database.run(
                lambda session: JobRepository(session).take_finished(ANNOUNCED_AT_ONCE)
            )
            for job in finished:
                self._metrics.jobs.labels(job.status).inc()
                self._metrics.job_seconds.observe(job.run_seconds)
                level = logging.WARNING if job.status is JobStatus.FAILED else logging.INFO
                log.log(level, "job_finished", extra=_said(job) | _summary(job))
            if len(finished) < ANNOUNCED_AT_ONCE:
                return

    def _tell(self, waiting: Waiting) -> None:
        if self._throttle.passes():
            oldest_s = round(waiting.oldest_s, 1)
            log.info("jobs_waiting", extra={"queued": waiting.queued, "oldest_waiting_s": oldest_s})


def _said(job: Job) -> dict[str, object]:
    return {"job": job.id, "request_id": job.request_id, "status": job.status.value}


def _summary(job: Job) -> dict[str, object]:
    return {
        "done": job.done,
        "failed": job.failed,
        "total": job.total,
        "attempts": job.attempts,
        "seconds": round(job.run_seconds, 3),
        "code": job.error_code,
    }
