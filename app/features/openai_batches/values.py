"""Files and batches as they are stored, and the states that a batch goes through."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Purpose(StrEnum):
    """What a file is for."""

    BATCH = "batch"
    OUTPUT = "batch_output"


class BatchStatus(StrEnum):
    """Where a batch is; the last four are final."""

    VALIDATING = "validating"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file; `FileRow` says what its columns mean."""

    key: int
    id: str
    collection: int
    filename: str
    purpose: Purpose
    size: int
    chunks: int
    is_complete: bool
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    """A batch to be stored."""

    id: str
    collection: int
    request_id: str
    endpoint: str
    completion_window: str
    meta: dict[str, str] | None
    output_expires_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(NewBatch):
    """A stored batch; `BatchRow` says what its columns mean."""

    key: int
    input_file_key: int
    input_file_id: str
    output_file_key: int | None
    error_file_key: int | None
    output_file_id: str | None
    error_file_id: str | None
    status: BatchStatus
    is_open: bool
    total: int
    completed: int
    failed: int
    offset: int
    output_bytes: int
    errors: list[dict[str, Any]] | None
    attempts: int
    stalled_attempts: int
    lease: str | None
    lease_offset: int
    due_at: datetime
    claimed_at: datetime | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    in_progress_at: datetime | None
    finalizing_at: datetime | None
    cancelling_at: datetime | None
    finished_at: datetime | None

    @property
    def is_cancelled(self) -> bool:
        """Whether its owner wants no more lines to be run."""
        return self.cancelling_at is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LineError:
    """What is wrong with a line of an input file, as OpenAI says it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as it is stored and answered."""
        return {
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "line": self.line,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of an input file: a request.

    Args:
        end: the offset in the file of what follows it.
        custom_id: its client's name for it.
        body: of the request, as JSON.
        is_streamed: whether it asks for a stream, which a file can't be.

    """

    end: int
    custom_id: str
    body: bytes
    is_streamed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LineAnswer:
    """The answer to a line, as it is written.

    Args:
        end: of the line.
        text: a line of the output file, or of the error file.
        is_good: whether it is one of the output file.

    """

    end: int
    text: bytes
    is_good: bool
