"""`/v1/files`: what batches read, and what they answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.core.callers import Scope
from app.errors import (
    DatabaseUnavailableError,
    FileInUseError,
    FileQuotaError,
    InvalidRequestError,
    MalformedFormError,
    OverloadedError,
    UnsupportedMediaTypeError,
    UploadedFileNotFoundError,
)
from app.features.documents.deps import CollectionDep
from app.features.openai_batches.deps import PartDep
from app.features.openai_batches.file_schemas import (
    FILE_ID,
    HOUR_S,
    MAX_PAGE,
    DeletedFile,
    FileObject,
    FileObjects,
    FilesQuery,
)
from app.features.openai_batches.file_service import FileService
from app.features.openai_batches.values import StoredFile
from app.http.forms import FORM, boundary_of
from app.http.guard import Guard
from app.http.problems import WITH_KEY, openai_problems
from app.http.streamed import StreamedResponse

router = APIRouter(prefix="/v1", tags=["batches"], dependencies=[Depends(Guard(Scope.JOBS))])
STORED = (*WITH_KEY, DatabaseUnavailableError, InvalidRequestError)
ONE = (*STORED, UploadedFileNotFoundError)
FileId = Annotated[str, Path(pattern=FILE_ID)]
BYTES = "application/octet-stream"  # as OpenAI answers; generators of clients know no JSONL
UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    # Else a generator names it as it names the operation's parameters.
                    "title": "FileUpload",
                    "type": "object",
                    "required": ["purpose", "file"],
                    "additionalProperties": False,
                    "properties": {
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A request in each line.",
                        },
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": HOUR_S,
                            "maximum": 720 * HOUR_S,
                            "description": "When it is deleted; default: BATCH_FILE_DAYS.",
                        },
                    },
                }
            }
        },
    }
}
CONTENT: dict[int | str, Any] = {
    200: {
        "description": "The file.",
        "content": {BYTES: {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post(
    "/files",
    summary="Upload a file",
    responses=openai_problems(
        *STORED,
        MalformedFormError,
        UnsupportedMediaTypeError,
        FileQuotaError,
        OverloadedError,
    ),
    openapi_extra=UPLOAD,
)
async def upload_file(request: Request, part: PartDep, scope: CollectionDep) -> FileObject:
    """Upload a file for a batch; it is stored while it comes, and checked when the batch begins."""
    kind = request.headers.get("content-type", "")
    boundary = boundary_of(kind) if kind.partition(";")[0].strip().lower() == FORM else None
    if boundary is None:
        raise UnsupportedMediaTypeError(f"The body must be sent as Content-Type: {FORM}.")
    return FileObject.of(await part.uploads.store(request.stream(), boundary, scope=scope))


@router.get("/files", summary="List files", responses=openai_problems(*ONE))
async def list_files(
    query: Annotated[FilesQuery, Query()], part: PartDep, scope: CollectionDep
) -> FileObjects:
    """List the caller's files; an admin's list has everyone's."""
    files, has_more = await part.files.page(
        scope=scope,
        purpose=query.purpose,
        after=query.after,
        is_ascending=query.order == "asc",
        limit=min(query.limit, MAX_PAGE),
    )
    return FileObjects.of([FileObject.of(file) for file in files], has_more=has_more)


@router.get("/files/{file_id}", summary="Get a file", responses=openai_problems(*ONE))
async def get_file(file_id: FileId, part: PartDep, scope: CollectionDep) -> FileObject:
    """Return what is known of a file, without its content."""
    return FileObject.of(await part.files.get(file_id, scope=scope))


@router.delete(
    "/files/{file_id}",
    summary="Delete a file",
    responses=openai_problems(*ONE, FileInUseError),
)
async def delete_file(file_id: FileId, part: PartDep, scope: CollectionDep) -> DeletedFile:
    """Delete a file, unless a batch that isn't finished reads it."""
    await part.files.delete(file_id, scope=scope)
    return DeletedFile(id=file_id)


@router.get(
    "/files/{file_id}/content",
    summary="Download a file",
    responses=openai_problems(*ONE) | CONTENT,
    response_class=Response,
)
async def get_file_content(file_id: FileId, part: PartDep, scope: CollectionDep) -> Response:
    """Return the content of a file, as it was uploaded or answered."""
    file = await part.files.get(file_id, scope=scope)
    name = f"attachment; filename*=UTF-8''{quote(file.filename)}"
    answer = StreamedResponse(
        _content(part.files, file),
        fail=lambda _: None,
        media_type=BYTES,
        headers={"Content-Disposition": name},
        cut_event="file_download_cut",
    )
    # One that is cut, because it was deleted meanwhile, is then not taken for whole.
    answer.headers["Content-Length"] = str(file.size)
    return answer


@asynccontextmanager
async def _content(files: FileService, file: StoredFile) -> AsyncIterator[AsyncIterator[bytes]]:
    yield files.chunks(file.key)
