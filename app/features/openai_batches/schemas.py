"""The wire contract of `/v1/files` and `/v1/batches`, which is OpenAI's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.callers import Scope
from app.core.field_errors import field_errors
from app.errors import InvalidRequestError
from app.features.openai_batches.values import Batch, BatchStatus, StoredFile
from app.models.schemas import Request, Response, example, whole_number

HOUR_S, DAY_S = 3_600, 86_400
FILE_ID = r"^file-[A-Za-z0-9_-]{1,60}$"
BATCH_ID = r"^batch_[A-Za-z0-9_-]{1,60}$"
MAX_PAGE = 100
OPENAI_MAX_PAGE = 10_000  # what its clients may ask for; a page has MAX_PAGE at most
MAX_METADATA = 16
# What a key needs to have lines of an endpoint run.
ENDPOINTS: Mapping[str, Scope] = {
    "/v1/chat/completions": Scope.CHAT,
    "/v1/completions": Scope.CHAT,
    "/v1/responses": Scope.CHAT,
    "/v1/embeddings": Scope.EMBED,
}
Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings"]
FILE: dict[str, Any] = {
    "id": "file-9V1mXk2q0yWc3fT7uZb5RsLe",
    "object": "file",
    "bytes": 1_024,
    "created_at": 1795348800,
    "expires_at": 1797940800,
    "filename": "questions.jsonl",
    "purpose": "batch",
    "status": "processed",
    "status_details": None,
}
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
DELETED = {"id": FILE["id"], "object": "file", "deleted": True}


class ExpiresAfter(Request):
    """After how many seconds a file is deleted."""

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=HOUR_S, le=30 * DAY_S), BeforeValidator(whole_number)]


class FileForm(BaseModel):
    """The fields of a form with a file, beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    purpose: Literal["batch"]
    anchor: Annotated[Literal["created_at"] | None, Field(alias="expires_after[anchor]")] = None
    expires_s: Annotated[
        Annotated[int, Field(ge=HOUR_S, le=30 * DAY_S)] | None,
        Field(alias="expires_after[seconds]"),
    ] = None

    @classmethod
    def read(cls, fields: Mapping[str, str]) -> Self:
        """Return the fields, checked.

        Raises:
            InvalidRequestError: naming the first that is wrong.

        """
        try:
            return cls.model_validate(dict(fields))
        except ValidationError as failure:
            failures = [{**e, "loc": ("body", *e["loc"])} for e in failure.errors()]
            raise InvalidRequestError(field_errors(failures)) from None


class FileObject(Response):
    """A file."""

    model_config = ConfigDict(json_schema_extra=example(FILE))

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: Annotated[int, Field(description="In seconds since 1970, as all times here.")]
    expires_at: int | None
    filename: str
    purpose: Annotated[str, Field(description="`batch`, or `batch_output` for answers.")]
    status: Literal["processed"] = "processed"
    status_details: str | None = None

    @classmethod
    def of(cls, file: StoredFile) -> "FileObject":
        """Show a file."""
        return cls(
            id=file.id,
            bytes=file.size,
            created_at=int(file.created_at.timestamp()),
            expires_at=_seconds(file.expires_at),
            filename=file.filename,
            purpose=file.purpose.value,
        )


class FileObjects(Response):
    """Files."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "object": "list",
                "data": [FILE],
                "first_id": FILE["id"],
                "last_id": FILE["id"],
                "has_more": False,
            }
        )
    )

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(Response):
    """A file that was deleted."""

    model_config = ConfigDict(json_schema_extra=example(DELETED))

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class FilesQuery(Request):
    """Which files are listed."""

    model_config = ConfigDict(strict=False)

    after: Annotated[str | None, Field(pattern=FILE_ID, description="The `last_id` before.")] = None
    limit: Annotated[
        int, Field(ge=1, le=OPENAI_MAX_PAGE, description=f"A page has {MAX_PAGE} at most.")
    ] = OPENAI_MAX_PAGE
    order: Annotated[Literal["asc", "desc"], Field(description="By time.")] = "desc"
    purpose: Annotated[str | None, Field(max_length=64, pattern=r"^[a-z_-]*$")] = None


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
            return _seconds(batch.finished_at) if batch.status is status else None

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
            in_progress_at=_seconds(batch.in_progress_at),
            expires_at=int(batch.expires_at.timestamp()),
            finalizing_at=_seconds(batch.finalizing_at),
            completed_at=ended(BatchStatus.COMPLETED),
            failed_at=ended(BatchStatus.FAILED),
            expired_at=ended(BatchStatus.EXPIRED),
            cancelling_at=_seconds(batch.cancelling_at),
            cancelled_at=ended(BatchStatus.CANCELLED),
            request_counts=RequestCounts(
                total=batch.total, completed=batch.completed, failed=batch.failed
            ),
            metadata=batch.meta,
        )


class BatchObjects(Response):
    """Batches, newest first."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "object": "list",
                "data": [BATCH],
                "first_id": BATCH["id"],
                "last_id": BATCH["id"],
                "has_more": False,
            }
        )
    )

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp())
