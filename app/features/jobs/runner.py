"""How a worker runs jobs: one at a time, its documents in batches, a commit after each."""

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from app.core.logs import request_id
from app.core.tracing import resumed, sampled
from app.db.session import Database
from app.errors import DatabaseUnavailableError, ServiceError, StartupError
from app.features.jobs.batches import Batch, BatchBounds, JobBatches, JobEmbedder, Row
from app.features.jobs.heartbeat import keep_lease
from app.features.jobs.leases import JobLeases
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.policy import LeaseLostError, RetryPolicy
from app.features.jobs.values import Job

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

# Under way at once: the engine has the next batch while one is committed.
BATCHES_AT_ONCE = 2

# Returns the model of that name, loaded if need be. Raises StartupError or ServiceError.
FindEmbedder = Callable[[str], Awaitable[JobEmbedder]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerPolicy:
    """The limits of a worker.

    Args:
        lease_s: seconds without a heartbeat after which the job is given away.
        slice_s: seconds after which the job goes back to the queue, behind others.
        batch: limits of one commit.
        retry: when failed attempts are repeated.

    """

    lease_s: float = 8.0
    slice_s: float = 15.0
    batch: BatchBounds = field(default_factory=BatchBounds)
    retry: RetryPolicy


class JobRunner:
    """Runs the jobs that are due; one for each worker.

    Args:
        database: where jobs, documents and passages are.
        find: returns the model of a job.
        policy: the limits.
        metrics: where attempts and documents count.
        is_stopping: called between batches; if true the job goes back to the queue.
        telemetry: continues the traces of the requests that submitted jobs; None: it's off.

    """

    def __init__(
        self,
        database: Database,
        *,
        find: FindEmbedder,
        policy: RunnerPolicy,
        metrics: JobMetrics,
        is_stopping: Callable[[], bool] = lambda: False,
        telemetry: "Telemetry | None" = None,
    ) -> None:
        self._database = database
        self._find = find
        self._policy = policy
        self._metrics = metrics
        self._is_stopping = is_stopping
        self._telemetry = telemetry

    async def run_next(self) -> bool:
        """Run the job that is due for one slice of time; False when none was due.

        Raises:
            DatabaseUnavailableError: the jobs can't be read.

        """
        lease = secrets.token_hex(8)
        job = await self._database.run(partial(_claim, lease=lease, lease_s=self._policy.lease_s))
        if job is None:
            return False
        token = request_id.set(job.request_id)
        try:
            name = f"job {job.kind}"
            with resumed(self._telemetry, job.trace, name, _attributes(job), kind="consumer"):
                await self._attempt(job, lease)
        finally:
            request_id.reset(token)
        return True

    async def _attempt(self, job: Job, lease: str) -> None:
        """Work on a job; a failure is stored in its row, if the database can be reached."""
        log.info("job_attempt", extra={"job": job.id, "attempt": job.attempts, "done": job.done})
        try:
            extend = partial(_extend, key=job.key, lease=lease, lease_s=self._policy.lease_s)
            async with keep_lease(lambda: self._database.run(extend), lease_s=self._policy.lease_s):
                is_done = await self._work(job, lease)
            end = _finish if is_done else _release
            await self._database.run(partial(end, key=job.key, lease=lease))
            self._count("finished" if is_done else "released")
        except asyncio.CancelledError:
            # The worker stops: others needn't wait until the lease expires.
            with suppress(DatabaseUnavailableError):
                await self._database.run(partial(_release, key=job.key, lease=lease))
                self._count("released")
            raise
        except LeaseLostError:
            log.info("job_let_go", extra={"job": job.id})
            self._count("let_go")
        except DatabaseUnavailableError:
            # Its lease expires, and it is queued again.
            log.warning("job_interrupted", extra={"job": job.id, "reason": "database"})
        except (ServiceError, StartupError) as failure:
            code = failure.code if isinstance(failure, ServiceError) else failure.reason
            await self._fail(job, lease, code, str(failure))
        except Exception as failure:
            # The boundary of an attempt: the row says that it failed, the log says why.
            log.exception("job_crashed", extra={"job": job.id})
            await self._fail(job, lease, "internal_error", type(failure).__name__)

    async def _fail(self, job: Job, lease: str, code: str, detail: str) -> None:
        log.warning("job_attempt_failed", extra={"job": job.id, "code": code})
        if (trace := sampled()) is not None:
            trace.fail(code)
        fail = partial(
            _fail_attempt,
            key=job.key,
            lease=lease,
            code=code,
            detail=detail,
            policy=self._policy.retry,
        )
        with suppress(DatabaseUnavailableError):  # its lease expires
            await self._database.run(fail)
            self._count("failed")

    def _count(self, outcome: str) -> None:
        self._metrics.job_attempts.labels(outcome).inc()

    async def _work(self, job: Job, lease: str) -> bool:
        """Embed waiting documents in batches; True when none waits any more."""
        embedder = await self._find(job.model)
        batches = JobBatches(self._database, job, lease=lease, bounds=self._policy.batch)
        until_s = time.monotonic() + self._policy.slice_s
        pending: deque[tuple[Batch, asyncio.Task[list[Row]]]] = deque()
        try:
            while True:
                is_over = self._is_stopping() or time.monotonic() > until_s
                while not is_over and len(pending) < BATCHES_AT_ONCE:
                    batch = await batches.next(embedder)
                    if batch is None:
                        break
                    pending.append((batch, asyncio.create_task(embedder.embed(batch.texts()))))
                if pending:
                    batch, task = pending.popleft()
                    outcomes = await batches.commit(batch, await task, space=embedder.space)
                    for outcome in outcomes:
                        self._metrics.job_items.labels(outcome.state.name.lower()).inc()
                elif is_over:
                    return False
                elif not batches.start_again():
                    return True
        finally:
            for _, task in pending:
                task.cancel()
            await asyncio.gather(*(task for _, task in pending), return_exceptions=True)


def _attributes(job: Job) -> dict[str, str | int]:
    """Return what the span of a slice says: it is one of as many as the job takes."""
    done = {"mlapi.job.done": job.done, "mlapi.items": job.total}
    return {"mlapi.job.id": job.id, "mlapi.model": job.model, "mlapi.attempt": job.attempts, **done}


def _claim(session: Session, *, lease: str, lease_s: float) -> Job | None:
    return JobLeases(session).claim(lease=lease, lease_s=lease_s)


def _extend(session: Session, *, key: int, lease: str, lease_s: float) -> bool:
    return JobLeases(session).extend(key, lease=lease, lease_s=lease_s)


def _release(session: Session, *, key: int, lease: str) -> None:
    JobLeases(session).release(key, lease=lease)


def _finish(session: Session, *, key: int, lease: str) -> None:
    JobLeases(session).finish(key, lease=lease)


def _fail_attempt(
    session: Session, *, key: int, lease: str, code: str, detail: str, policy: RetryPolicy
) -> None:
    JobLeases(session).fail_attempt(key, lease=lease, code=code, detail=detail, policy=policy)
