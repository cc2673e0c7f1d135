"""`/embed-batch` and `/jobs`."""

import asyncio
import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response

from app.core.callers import Caller, Scope
from app.core.logs import request_id
from app.errors import (
    DatabaseUnavailableError,
    DocumentNotFoundError,
    ForbiddenError,
    IdempotencyConflictError,
    InvalidRequestError,
    JobNotFoundError,
    JobStateError,
    JobsUnavailableError,
    ModelNotFoundError,
    RateLimitExceededError,
    TooManyJobsError,
)
from app.features.documents.collections import CollectionScope
from app.features.documents.deps import CollectionDep
from app.features.jobs.deps import PartDep
from app.features.jobs.schemas import (
    ID_PATTERN,
    AcceptedJob,
    EmbedBatchRequest,
    JobInfo,
    JobList,
    JobsQuery,
)
from app.features.jobs.service import JobService
from app.features.jobs.submission import JobRequest
from app.features.jobs.values import Job
from app.http.guard import AccessDep, CallerDep, Guard
from app.http.json_route import JsonRoute
from app.http.prefix import PrefixDep
from app.http.problems import WITH_BODY, WITH_KEY, problems
from app.services.access import Access

router = APIRouter(tags=["jobs"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.JOBS))])
STORED = (*WITH_KEY, DatabaseUnavailableError, InvalidRequestError)
ONE = (*STORED, JobNotFoundError)
# The loop alone keeps no reference to a task; each ends with its transaction's timeout.
UNFINISHED: set[asyncio.Task[Job]] = set()
# Submissions under way, by collection and idempotency key; of several, the last.
STORING: dict[tuple[int, str | None], asyncio.Task[Job] | None] = {}
NO_STORE = {"Cache-Control": "no-store"}
JobId = Annotated[str, Path(pattern=ID_PATTERN)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="The same request with the same key is the same job, however often it comes.",
    ),
]


class AccountedSubmission:
    """Submits a job for a route, and charges the caller for a new one."""

    def __init__(
        self, caller: Caller, scope: CollectionScope, *, access: Access, jobs: JobService
    ) -> None:
        self._caller = caller
        self._scope = scope
        self._access = access
        self._jobs = jobs

    async def __call__(self, body: EmbedBatchRequest, *, idempotency_key: str | None) -> Job:
        """Submit; raises as `JobService.submit` does.

        Raises:
            ForbiddenError: the body has documents, and the key may not store any.
            RateLimitExceededError: the caller's daily quota is used up, and the job is new.

        """
        if body.documents is not None and not self._caller.may(Scope.DOCUMENTS):
            raise ForbiddenError(f"The key has no scope {Scope.DOCUMENTS.value!r}.")
        # A body can have 100,000 ids: hashing them here would hold up all other requests.
        request_hash = await asyncio.to_thread(_hash, body)
        if idempotency_key is not None:
            # A repeated call costs nothing, so no quota or limit may refuse it.
            known = await self._jobs.find_submitted(
                idempotency_key, request_hash=request_hash, scope=self._scope
            )
            if known is not None:
                return known
        request = JobRequest(
            doc_ids=body.doc_ids or (),
            documents=[document.new() for document in body.documents or ()],
            model=body.model_name,
            idempotency_key=idempotency_key,
            webhook_url=body.webhook_url,
            request_id=request_id.get(),
            request_hash=request_hash,
        )
        # Not cancelled with the request: the job would be stored without a worker notified of it.
        task = asyncio.create_task(self._submit(request))
        UNFINISHED.add(task)
        task.add_done_callback(UNFINISHED.discard)
        return await asyncio.shield(task)

    async def _submit(self, request: JobRequest) -> Job:
        try:
            async with self._access.spending(self._caller, request.total) as charge:
                job, is_new = await self._store(request)
                await charge.settle(job.total if is_new else 0)
        except RateLimitExceededError:
            if known := await self._find_stored(request):
                return known
            raise
        return job

    async def _store(self, request: JobRequest) -> tuple[Job, bool]:
        key, me = (self._scope.collection, request.idempotency_key), asyncio.current_task()
        STORING[key] = me
        try:
            return await self._jobs.submit(request, scope=self._scope)
        finally:
            if STORING.get(key) is me:
                del STORING[key]

    async def _find_stored(self, request: JobRequest) -> Job | None:
        """Return the job that a concurrent call with the same key has stored."""
        if request.idempotency_key is None:
            return None
        if other := STORING.get((self._scope.collection, request.idempotency_key)):
            await asyncio.wait({other})
        return await self._jobs.find_submitted(
            request.idempotency_key, request_hash=request.request_hash, scope=self._scope
        )


# An async function: FastAPI makes a class that is a dependency in a thread, each time.
async def get_submission(
    caller: CallerDep, scope: CollectionDep, access: AccessDep, part: PartDep
) -> AccountedSubmission:
    """Return the caller's `AccountedSubmission`."""
    return AccountedSubmission(caller, scope, access=access, jobs=part.jobs)


SubmitDep = Annotated[AccountedSubmission, Depends(get_submission)]


def _hash(body: EmbedBatchRequest) -> str:
    """Return a hash that is the same for bodies that mean the same."""
    return hashlib.sha256(json.dumps(body.model_dump(), sort_keys=True).encode()).hexdigest()


@router.post(
    "/embed-batch",
    status_code=202,
    summary="Make documents searchable",
    responses=problems(
        *WITH_BODY,
        *STORED,
        DocumentNotFoundError,
        ModelNotFoundError,
        IdempotencyConflictError,
        JobsUnavailableError,
        TooManyJobsError,
    ),
)
async def embed_batch(
    body: EmbedBatchRequest,
    submit: SubmitDep,
    prefix: PrefixDep,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> AcceptedJob:
    """Submit a job that embeds documents; it goes on when this process ends, or the worker."""
    job = await submit(body, idempotency_key=idempotency_key)
    response.headers["Location"] = f"{prefix}/jobs/{job.id}"
    return AcceptedJob(job_id=job.id, status=job.status)


@router.get("/jobs", summary="List jobs", responses=problems(*STORED))
async def list_jobs(
    query: Annotated[JobsQuery, Query()],
    part: PartDep,
    scope: CollectionDep,
    response: Response,
) -> JobList:
    """List the caller's jobs, newest first; an admin's list has everyone's."""
    page = await part.jobs.page(
        scope=scope,
        status=query.status,
        before_key=int(query.cursor) if query.cursor else None,
        limit=query.limit,
    )
    response.headers.update(NO_STORE)
    return JobList(
        jobs=[JobInfo.of(job) for job in page.jobs], next=str(page.next) if page.next else None
    )


@router.get("/jobs/{job_id}", summary="Get a job", responses=problems(*ONE))
async def get_job(
    job_id: JobId, part: PartDep, scope: CollectionDep, response: Response
) -> JobInfo:
    """Return a job as it is now."""
    response.headers.update(NO_STORE)
    return JobInfo.of(await part.jobs.get(job_id, scope=scope))


@router.delete("/jobs/{job_id}", summary="Cancel a job", responses=problems(*ONE, JobStateError))
async def cancel_job(job_id: JobId, part: PartDep, scope: CollectionDep) -> JobInfo:
    """End a job that isn't finished, after the batch that is running; what is done stays."""
    return JobInfo.of(await part.jobs.cancel(job_id, scope=scope))


@router.post(
    "/jobs/{job_id}/retry",
    status_code=202,
    summary="Retry a failed job",
    responses=problems(*ONE, JobStateError, JobsUnavailableError, TooManyJobsError),
)
async def retry_job(job_id: JobId, part: PartDep, scope: CollectionDep) -> JobInfo:
    """Queue a failed job again: what is done stays, what failed is tried once more."""
    return JobInfo.of(await part.jobs.retry(job_id, scope=scope))
