"""The wire contract of `/v1/batches`, which is OpenAI's."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.core.callers import Scope
from app.features.openai_batches.file_schemas import (
    FILE,
    FILE_ID,
    MAX_PAGE,
    ExpiresAfter,
    seconds_of,
)
from app.features.openai_batches.values import Batch, BatchStatus
from app.http.openai_lists import OpenAiList, example_list
from app.models.schemas import Request, Response, example

BATCH_ID = r"^batch_[A-Za-z0-9_-]{1,60}$"
MAX_METADATA = 16
# What a key needs to have lines of an endpoint run.
ENDPOINTS: Mapping[str, Scope] = {
    "/v1/chat/completions": Scope.CHAT,
    "/v1/completions": Scope.CHAT,
    "/v1/responses": Scope.CHAT,
    "/v1/embeddings": Scope.EMBED,
}
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]
BATCH: dict[str, Any] = {
    "id": "batch_3fT7uZb5RsLe9V1mXk2q0yWc",
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "errors": None,
    "input_file_id": FILE["id"],
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1795348800,
    "in_progress_at": 1795348801,
    "expires_at": 1795435200,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 100, "completed": 20, "failed": 0},
    "metadata": {"job": "nightly"},
}


class BatchesQuery(Request):
    """Which batches are listed."""

    model_config = ConfigDict(strict=False)

    after: Annotated[str | None, Field(pattern=BATCH_ID, description="The `last_id` before.")] = (
        None
    )
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 20


class CreateBatchRequest(Request):
    """A file whose lines are to be run."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "input_file_id": FILE["id"],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
                "metadata": {"job": "nightly"},
            }
        )
    )

    input_file_id: Annotated[str, Field(pattern=FILE_ID)]
    endpoint: Endpoint = Field(description="Where all lines of the file are sent.")
    completion_window: Literal["24h"]
    metadata: (
        Annotated[
            dict[
                Annotated[str, Field(max_length=64)],
                Annotated[str, Field(max_length=512)],
            ],
            Field(max_length=MAX_METADATA),
        ]
        | None
    ) = None
    output_expires_after: ExpiresAfter | None = Field(
        None, description="When the files with the answers are deleted; default: as all files."
    )


class BatchError(Response):
    """What is wrong with a line of the input file, or with all of it."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(Response):
    """What is wrong with the input file: the first hundred."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(Response):
    """How many lines there are, were answered with 200, and with something else."""

    total: int
    completed: int
    failed: int


class BatchObject(Response):
    """A batch, as it is now."""

    model_config = ConfigDict(json_schema_extra=example(BATCH))

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: Annotated[
        str | None, Field(description="Of the lines answered with 200, once the batch has ended.")
    ]
    error_file_id: Annotated[str | None, Field(description="Of all other lines.")]
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> "BatchObject":
        """Show a batch."""

        def ended(status: BatchStatus) -> int | None:
            return seconds_of(batch.finished_at) if batch.status is status else None

        errors = [BatchError.model_validate(error) for error in batch.errors or ()]
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            errors=BatchErrors(data=errors) if errors else None,
            input_file_id=batch.input_file_id,
            completion_window=batch.completion_window,
            status=batch.status,
            output_file_id=None if batch.is_open else batch.output_file_id,
            error_file_id=None if batch.is_open else batch.error_file_id,
            created_at=int(batch.created_at.timestamp()),
            in_progress_at=seconds_of(batch.in_progress_at),
            expires_at=int(batch.expires_at.timestamp()),
            finalizing_at=seconds_of(batch.finalizing_at),
            completed_at=ended(BatchStatus.COMPLETED),
            failed_at=ended(BatchStatus.FAILED),
            expired_at=ended(BatchStatus.EXPIRED),
            cancelling_at=seconds_of(batch.cancelling_at),
            cancelled_at=ended(BatchStatus.CANCELLED),
            request_counts=RequestCounts(
                total=batch.total, completed=batch.completed, failed=batch.failed
            ),
            metadata=batch.meta,
        )


class BatchObjects(OpenAiList[BatchObject]):
    """Batches, newest first."""

    model_config = example_list(BATCH)
