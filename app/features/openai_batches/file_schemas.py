"""The wire contract of `/v1/files`, which is OpenAI's."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.field_errors import field_errors
from app.errors import InvalidRequestError
from app.features.openai_batches.values import StoredFile
from app.http.openai_lists import OpenAiList, example_list
from app.models.schemas import Request, Response, example, whole_number

HOUR_S, DAY_S = 3_600, 86_400
FILE_ID = r"^file-[A-Za-z0-9_-]{1,60}$"
MAX_PAGE = 100
OPENAI_MAX_PAGE = 10_000  # what its clients may ask for; a page has MAX_PAGE at most
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
            expires_at=seconds_of(file.expires_at),
            filename=file.filename,
            purpose=file.purpose.value,
        )


class FileObjects(OpenAiList[FileObject]):
    """Files."""

    model_config = example_list(FILE)


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


def seconds_of(moment: datetime | None) -> int | None:
    """Return a time as OpenAI has it."""
    return None if moment is None else int(moment.timestamp())
