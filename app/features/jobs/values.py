"""The values of a job as they are stored, and the states that it goes through."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any, Protocol


class JobStatus(StrEnum):
    """Where a job is; the last three are final, though a failed one can be retried."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self in FINAL


OPEN = (JobStatus.QUEUED, JobStatus.RUNNING)
FINAL = (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED)


class ItemState(IntEnum):
    """The state of a document of a job."""

    WAITING = 0
    DONE = 1
    SKIPPED = 2  # it was deleted
    FAILED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to be stored."""

    id: str
    kind: str
    collection: int
    request_id: str
    model: str
    idempotency_key: str | None = None
    request_hash: str
    webhook_url: str | None = None
    trace: str | None = None  # headers of the request's trace, as JSON; None: it had none


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(NewJob):
    """A stored job; `JobRow` says what its columns mean."""

    key: int
    status: JobStatus
    total: int
    done: int
    failed: int
    attempts: int
    stalled_attempts: int
    lease: str | None
    lease_until: datetime | None
    lease_done: int
    due_at: datetime
    claimed_at: datetime | None
    error_code: str | None
    error: str | None
    result: dict[str, Any] | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None
    run_seconds: float
    is_announced: bool
    webhook_status: str | None
    webhook_attempts: int
    webhook_due_at: datetime | None
    webhook_answer: str | None
    webhook_delivered_at: datetime | None

    @property
    def has_progressed(self) -> bool:
        """Whether the present attempt has committed anything."""
        return self.done + self.failed > self.lease_done


@dataclass(frozen=True, slots=True)
class Item:
    """A document of a job that waits to be done."""

    ordinal: int
    document_key: int


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """The outcome of a document; `error` says why it failed."""

    ordinal: int
    state: ItemState
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The jobs that wait for a worker.

    Of `queued` jobs `due` could run now; the oldest of those has waited for `oldest_s`. The first
    of the others can run in `next_due_s`.
    """

    queued: int
    due: int
    oldest_s: float
    next_due_s: float | None


class Attempted(Protocol):
    """What is attempted until it is done: a job, or a batch of another feature."""

    @property
    def stalled_attempts(self) -> int:
        """Attempts in a row that got nothing done."""
        ...


class AttemptPolicy(Protocol):
    """Decides what follows an attempt that failed."""

    def next(self, job: Attempted, now: datetime) -> datetime | None:
        """Return when the job may be tried again, None for never; this attempt is counted."""
        ...
