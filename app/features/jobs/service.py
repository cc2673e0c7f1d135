"""Jobs as their owners see them: submitted, read, cancelled, retried."""

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from app.core.tracing import carried
from app.db.session import Database
from app.engines.base import Task
from app.errors import (
    JobNotFoundError,
    JobStateError,
    JobsUnavailableError,
    ModelNotFoundError,
    TooManyJobsError,
)
from app.features.documents.collections import CollectionScope
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.notifier import JobNotifier
from app.features.jobs.repository import JobRepository
from app.features.jobs.submission import JobRequest, check_open_jobs, find_known, submit
from app.features.jobs.values import Job, JobStatus, NewJob
from app.models.registry import ModelRegistry

log = logging.getLogger(__name__)

KIND = "embed"
ID_BYTES = 18  # 24 characters, too many to guess
# A hundred thousand documents take seconds.
SUBMIT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPage:
    """Jobs, newest first, and the key that the next page begins after; None at the end."""

    jobs: list[Job]
    next: int | None


class JobService:
    """Submits, reads, cancels and retries jobs.

    Args:
        database: where they are.
        notifier: wakes a worker for a new job; None: workers can't be notified.
        registry: has the names of the embedders; they needn't be loaded here.
        metrics: where refusals count.
        max_open: unfinished jobs that a caller may have.

    """

    def __init__(
        self,
        database: Database,
        *,
        notifier: JobNotifier | None,
        registry: ModelRegistry,
        metrics: JobMetrics,
        max_open: int,
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._registry = registry
        self._refused = metrics.jobs_refused
        self._max_open = max_open

    async def find_submitted(
        self, idempotency_key: str, *, request_hash: str, scope: CollectionScope
    ) -> Job | None:
        """Return the job of an earlier call with the same key; None when there was none.

        Raises:
            IdempotencyConflictError: that call had another body.

        """
        find = partial(
            find_known, idempotency_key=idempotency_key, request_hash=request_hash, scope=scope
        )
        return await self._database.read(find)

    async def submit(self, request: JobRequest, *, scope: CollectionScope) -> tuple[Job, bool]:
        """Store a job, with its documents where it brings any, and notify a worker.

        Returns:
            The job, and whether it is new: an idempotency key that was used before for the same
            request gives the job of that call.

        Raises:
            JobsUnavailableError: there is no way to notify a worker.
            ModelNotFoundError: no embedder has that name.
            DocumentNotFoundError: names the first that are missing; nothing was stored.
            IdempotencyConflictError: the key was used for another request.
            TooManyJobsError: the caller has too many; nothing was stored.
            DatabaseUnavailableError: whether it was stored isn't known.

        """
        notifier = self._require_notifier()
        new = NewJob(
            id=f"job_{secrets.token_urlsafe(ID_BYTES)}",
            kind=KIND,
            collection=scope.collection,
            request_id=request.request_id,
            model=self._find_model(request.model),
            idempotency_key=request.idempotency_key,
            request_hash=request.request_hash,
            webhook_url=request.webhook_url,
            trace=carried(),
        )
        work = partial(submit, new=new, request=request, scope=scope, max_open=self._max_open)
        with self._counted():
            job, is_new = await self._database.run(work, timeout_s=SUBMIT_TIMEOUT_S)
        if is_new:
            log.info("job_submitted", extra={"job": job.id, "documents": job.total})
            await notifier.notify()
        return job, is_new

    async def get(self, job_id: str, *, scope: CollectionScope) -> Job:
        """Return a job.

        Raises:
            JobNotFoundError: there is none with this id that the caller may see.

        """
        job = await self._database.read(
            lambda session: JobRepository(session).by_id(job_id, collection=scope.seen)
        )
        if job is None:
            raise JobNotFoundError
        return job

    async def page(
        self,
        *,
        scope: CollectionScope,
        status: JobStatus | None,
        before_key: int | None,
        limit: int,
    ) -> JobPage:
        """Return up to `limit` jobs that the caller may see, those after `before_key`."""
        jobs = await self._database.read(
            lambda session: JobRepository(session).page(
                collection=scope.seen, status=status, before_key=before_key, limit=limit + 1
            )
        )
        page = jobs[:limit]
        return JobPage(jobs=page, next=page[-1].key if len(jobs) > limit else None)

    async def cancel(self, job_id: str, *, scope: CollectionScope) -> Job:
        """End a job; what is done stays.

        Raises:
            JobNotFoundError: as `get`.
            JobStateError: it is finished.

        """
        job = await self._database.run(partial(_cancel, job_id=job_id, scope=scope))
        log.info("job_cancelled", extra={"job": job.id})
        return job

    async def retry(self, job_id: str, *, scope: CollectionScope) -> Job:
        """Queue a failed job again.

        Raises:
            JobNotFoundError: as `get`.
            JobStateError: it hasn't failed.
            JobsUnavailableError: there is no way to notify a worker.
            TooManyJobsError: its owner has too many.

        """
        notifier = self._require_notifier()
        work = partial(_retry, job_id=job_id, scope=scope, max_open=self._max_open)
        with self._counted():
            job = await self._database.run(work)
        log.info("job_retried", extra={"job": job.id})
        await notifier.notify()
        return job

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except TooManyJobsError:
            self._refused.inc()
            raise

    def _require_notifier(self) -> JobNotifier:
        if self._notifier is None:
            raise JobsUnavailableError
        return self._notifier

    def _find_model(self, name: str | None) -> str:
        for entry in self._registry.entries:
            is_meant = entry.is_default if name is None else entry.spec.name == name
            if is_meant and entry.spec.task == Task.EMBEDDING:
                return entry.spec.name
        raise ModelNotFoundError


def _find(session: Session, job_id: str, scope: CollectionScope) -> Job:
    job = JobRepository(session).by_id(job_id, collection=scope.seen)
    if job is None:
        raise JobNotFoundError
    return job


def _cancel(session: Session, *, job_id: str, scope: CollectionScope) -> Job:
    job = _find(session, job_id, scope)
    cancelled = JobRepository(session).cancel(job.key)
    if cancelled is None:
        raise JobStateError(f"The job is {_find(session, job_id, scope).status} already.")
    return cancelled


def _retry(session: Session, *, job_id: str, scope: CollectionScope, max_open: int) -> Job:
    job = _find(session, job_id, scope)
    jobs = JobRepository(session)
    queued = jobs.retry(job.key)
    if queued is None:
        raise JobStateError(f"The job is {job.status}; only a failed one can be retried.")
    check_open_jobs(jobs, job.collection, max_open, is_last=True)
    return queued
