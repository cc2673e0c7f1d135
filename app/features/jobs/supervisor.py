"""What the supervisor of jobs does: frees dead workers' jobs, notifies again, reports, counts."""

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
from app.features.jobs.leases import JobLeases
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.notifier import JobNotifier
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.repository import JobRepository
from app.features.jobs.values import FINAL, Job, JobStatus, Waiting

log = logging.getLogger(__name__)

REAPED_AT_ONCE = 100
REPORTED_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorPolicy:
    """The intervals of the supervisor.

    Args:
        retry: what becomes of a job whose worker died.
        interval_s: between two checks; for a job that is due sooner it notifies on time.
        max_wait_s: how long a job may wait before workers are notified again.
        notify_interval_s: between two such notifications: workers may be busy.
        log_interval_s: between two log lines of what waits.

    """

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    interval_s: float = 2.0
    max_wait_s: float = 3.0
    notify_interval_s: float = 10.0
    log_interval_s: float = 60.0


class JobSupervisor:
    """Supervises jobs; every service process has one, and any number may work at once.

    Args:
        database: where the jobs are.
        notifier: wakes workers for jobs that none has taken; None: workers can't be notified.
        metrics: where jobs count.
        policy: its intervals.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        database: Database,
        *,
        notifier: JobNotifier | None,
        metrics: JobMetrics,
        policy: SupervisorPolicy,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._metrics = metrics
        self._policy = policy
        self._clock = clock
        self._is_failing = False
        self._notified_at_s = -policy.notify_interval_s
        self._due_at_s: float | None = None  # when the next job that pauses is due
        self._throttle = Throttle(policy.log_interval_s, clock=clock)
        self._throttle.restart()
        # Alerts see an increase only of a series that was there before.
        for status in FINAL:
            metrics.jobs.labels(status)

    def running(
        self, *, after: Callable[[], Awaitable[object]]
    ) -> AbstractAsyncContextManager[object]:
        """Supervise during a block, once `after` has returned: before there may be no tables."""
        return run_in_background(self._run, name="job_keeper", after=after)

    async def check(self) -> float:
        """Do all that is to be done now; return in how many seconds to check again.

        A failure is logged once, until it works again.
        """
        try:
            # The check logs itself when the database is away, or has no tables yet.
            if await self._database.check(timeout_s=self._database.timeout_s) is None:
                await self._supervise()
            self._is_failing = False
        except DatabaseUnavailableError:
            pass
        except Exception as failure:
            # The next check may work, and must come: nothing else finds dead workers.
            if not self._is_failing:
                log.exception("job_keeper_failed", extra={"error": type(failure).__name__})
            self._is_failing = True
        if self._due_at_s is None:
            return self._policy.interval_s
        return min(self._policy.interval_s, max(0.0, self._due_at_s - self._clock()))

    async def _run(self) -> None:
        while True:
            pause_s = await self.check()
            await asyncio.sleep(pause_s)

    async def _supervise(self) -> None:
        reaped = await self._reap()
        waiting = await self._database.read(lambda session: JobRepository(session).waiting())
        self._metrics.jobs_queued.set(waiting.queued)
        self._metrics.jobs_oldest_waiting_seconds.set(waiting.oldest_s)
        await self._notify(waiting, has_reaped=reaped > 0)
        await self._report_finished()
        self._log_waiting(waiting)

    async def _reap(self) -> int:
        """Queue the jobs of silent workers again; return how many."""
        reaped = await self._database.run(
            lambda session: JobLeases(session).reap(policy=self._policy.retry, limit=REAPED_AT_ONCE)
        )
        for job in reaped:
            self._metrics.jobs_reaped.inc()
            self._metrics.job_attempts.labels("worker_lost").inc()
            log.warning("job_reaped", extra=_fields(job) | {"attempts": job.attempts})
        return len(reaped)

    async def _notify(self, waiting: Waiting, *, has_reaped: bool) -> None:
        """Notify workers of jobs that can run, where that is needed."""
        at_s = self._clock()
        is_due = self._due_at_s is not None and at_s >= self._due_at_s
        self._due_at_s = None if waiting.next_due_s is None else at_s + waiting.next_due_s
        is_late = waiting.oldest_s > self._policy.max_wait_s
        is_late = is_late and at_s - self._notified_at_s >= self._policy.notify_interval_s
        if self._notifier is not None and waiting.due and (has_reaped or is_due or is_late):
            self._notified_at_s = at_s
            await self._notifier.notify()

    async def _report_finished(self) -> None:
        """Count and log finished jobs, each in one process only."""
        while True:
            finished = await self._database.run(
                lambda session: JobRepository(session).take_finished(REPORTED_AT_ONCE)
            )
            for job in finished:
                self._metrics.jobs.labels(job.status).inc()
                self._metrics.job_seconds.observe(job.run_seconds)
                level = logging.WARNING if job.status is JobStatus.FAILED else logging.INFO
                log.log(level, "job_finished", extra=_fields(job) | _summary(job))
            if len(finished) < REPORTED_AT_ONCE:
                return

    def _log_waiting(self, waiting: Waiting) -> None:
        if self._throttle.passes():
            oldest_s = round(waiting.oldest_s, 1)
            log.info("jobs_waiting", extra={"queued": waiting.queued, "oldest_waiting_s": oldest_s})


def _fields(job: Job) -> dict[str, object]:
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
