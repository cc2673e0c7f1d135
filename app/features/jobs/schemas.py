"""The wire contract of `/embed-batch` and `/jobs`."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.features.documents.schemas import DocumentId, Documents
from app.features.jobs.values import Job, JobStatus
from app.models.schemas import KeyCursor, ModelName, Request, Response, example, one_of_two

MAX_DOC_IDS = 100_000
MAX_URL_CHARS = 2_000
MAX_PAGE = 100
ID_PATTERN = r"^job_[A-Za-z0-9_-]{1,60}$"
# Visible ASCII, without a user and a password: those would be shown with the job.
URL_PATTERN = r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?([/?][!-~]*)?$"
ID = "job_9V1mXk2q0yWc3fT7uZb5RsLe"
JOB: dict[str, Any] = {
    "id": ID,
    "kind": "embed",
    "status": "succeeded",
    "progress": {"done": 2, "total": 2, "failed": 0},
    "attempts": 1,
    "error": None,
    "result": {"embedded": 2, "skipped": 0, "failed": 0, "errors": []},
    "model": "minilm",
    "request_id": "0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
    "created_at": "2026-11-22T12:00:00Z",
    "started_at": "2026-11-22T12:00:00.1Z",
    "updated_at": "2026-11-22T12:00:00.3Z",
    "finished_at": "2026-11-22T12:00:00.3Z",
    "webhook": {
        "url": "https://example.com/jobs",
        "status": "delivered",
        "attempts": 1,
        "answer": "204",
        "delivered_at": "2026-11-22T12:00:02Z",
    },
}


class EmbedBatchRequest(Request):
    """Documents to be made searchable: by their ids, or new ones; exactly one of both."""

    model_config = ConfigDict(
        json_schema_extra=one_of_two("doc_ids", "documents")
        | example({"doc_ids": ["review:1", "review:2"], "webhook_url": "https://example.com/jobs"})
    )

    doc_ids: Annotated[list[DocumentId], Field(min_length=1, max_length=MAX_DOC_IDS)] | None = (
        Field(None, description="Documents that are stored already.")
    )
    documents: Documents | None = Field(
        None, description="Documents that are stored first, as by `POST /documents`."
    )
    webhook_url: str | None = Field(
        None,
        max_length=MAX_URL_CHARS,
        pattern=URL_PATTERN,
        description="Gets the finished job by POST; a public address.",
    )
    model_name: ModelName = None

    @model_validator(mode="after")
    def is_about_documents(self) -> Self:
        """Take ids or documents, not both."""
        if (self.doc_ids is None) == (self.documents is None):
            raise ValueError("either doc_ids or documents")
        return self


class AcceptedJob(Response):
    """The job that does it; `GET /jobs/{job_id}` says how far it is."""

    model_config = ConfigDict(json_schema_extra=example({"job_id": ID, "status": "queued"}))

    job_id: str
    status: JobStatus = Field(
        description="`queued`, or where the job is that has this Idempotency-Key."
    )


class JobProgress(Response):
    """How far a job is; `done` never goes back, and has documents that were skipped in it."""

    done: int
    total: int
    failed: int


class JobError(Response):
    """Why the last attempt failed."""

    code: str
    detail: str


class FailedDocument(Response):
    """A document that couldn't be embedded."""

    id: str
    error: str


class JobResult(Response):
    """What a finished job has come to."""

    embedded: int
    skipped: int = Field(description="Documents that were deleted before their turn came.")
    failed: int
    errors: list[FailedDocument] = Field(description="The first 100 that failed.")


class JobWebhook(Response):
    """How far the delivery of the finished job is."""

    url: str
    status: str | None = Field(
        description="`pending`, `delivered` or `failed`; null while the job isn't finished."
    )
    attempts: int
    answer: str | None = Field(description="The last answer's status, or why there was none.")
    delivered_at: datetime | None

    @classmethod
    def of(cls, job: Job) -> "JobWebhook | None":
        """Show a job's webhook; None when it has none."""
        if job.webhook_url is None:
            return None
        return cls(
            url=job.webhook_url,
            status=job.webhook_status,
            attempts=job.webhook_attempts,
            answer=job.webhook_answer,
            delivered_at=job.webhook_delivered_at,
        )


class JobInfo(Response):
    """A job, as it is now."""

    model_config = ConfigDict(json_schema_extra=example(JOB))

    id: str
    kind: str
    status: JobStatus
    progress: JobProgress
    attempts: int
    error: JobError | None = Field(
        description="Of a job that waits: why its last attempt failed; it is tried again."
    )
    result: JobResult | None
    model: str
    request_id: str = Field(description="Of the call that submitted the job.")
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    webhook: JobWebhook | None

    @classmethod
    def of(cls, job: Job) -> "JobInfo":
        """Show a job."""
        error = JobError(code=job.error_code, detail=job.error or "") if job.error_code else None
        return cls(
            id=job.id,
            kind=job.kind,
            status=job.status,
            progress=JobProgress(done=job.done, total=job.total, failed=job.failed),
            attempts=job.attempts,
            error=error,
            result=JobResult.model_validate(job.result) if job.result else None,
            model=job.model,
            request_id=job.request_id,
            created_at=job.created_at,
            started_at=job.started_at,
            updated_at=job.updated_at,
            finished_at=job.finished_at,
            webhook=JobWebhook.of(job),
        )


class JobList(Response):
    """Jobs, newest first."""

    model_config = ConfigDict(json_schema_extra=example({"jobs": [JOB], "next": "41"}))

    jobs: list[JobInfo]
    next: str | None = Field(description="`cursor` of the next page; null at the end.")


class JobsQuery(BaseModel):
    """Which page of which jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: JobStatus | None = Field(None, description="Only with this status.")
    limit: int = Field(20, ge=1, le=MAX_PAGE, description="Jobs in the page.")
    cursor: KeyCursor = None
