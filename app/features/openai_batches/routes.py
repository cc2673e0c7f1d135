"""`/v1/batches`: files of requests that are answered while no client waits."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from app.core.callers import Scope
from app.core.logs import request_id
from app.errors import (
    BatchNotFoundError,
    BatchStateError,
    DatabaseUnavailableError,
    FileQuotaError,
    ForbiddenError,
    InvalidRequestError,
    TooManyBatchesError,
    UploadedFileNotFoundError,
)
from app.features.documents.deps import CollectionDep
from app.features.openai_batches.deps import PartDep
from app.features.openai_batches.schemas import (
    BATCH_ID,
    ENDPOINTS,
    BatchesQuery,
    BatchObject,
    BatchObjects,
    CreateBatchRequest,
)
from app.features.openai_batches.service import BatchRequest
from app.http.guard import CallerDep, Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, openai_problems

router = APIRouter(
    prefix="/v1",
    tags=["batches"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(Scope.JOBS))],
)
STORED = (*WITH_KEY, DatabaseUnavailableError, InvalidRequestError)
ONE = (*STORED, BatchNotFoundError)
BatchId = Annotated[str, Path(pattern=BATCH_ID)]


@router.post(
    "/batches",
    summary="Run the lines of a file",
    responses=openai_problems(
        *WITH_BODY, *STORED, UploadedFileNotFoundError, FileQuotaError, TooManyBatchesError
    ),
)
async def create_batch(
    body: CreateBatchRequest, part: PartDep, scope: CollectionDep, caller: CallerDep
) -> BatchObject:
    """Begin a batch; it goes on when this process ends. The key needs its endpoint's scope too."""
    needed = ENDPOINTS[body.endpoint]
    if not caller.may(needed):
        raise ForbiddenError(f"The key has no scope {needed.value!r}.")
    expiry = body.output_expires_after
    request = BatchRequest(
        input_file_id=body.input_file_id,
        endpoint=body.endpoint,
        completion_window=body.completion_window,
        meta=body.metadata,
        output_expires_s=expiry.seconds if expiry else None,
        request_id=request_id.get(),
    )
    return BatchObject.of(await part.batches.create(request, scope=scope))


@router.get("/batches", summary="List batches", responses=openai_problems(*ONE))
async def list_batches(
    query: Annotated[BatchesQuery, Query()], part: PartDep, scope: CollectionDep
) -> BatchObjects:
    """List the caller's batches, newest first; an admin's list has everyone's."""
    batches, has_more = await part.batches.page(scope=scope, after=query.after, limit=query.limit)
    return BatchObjects.of([BatchObject.of(batch) for batch in batches], has_more=has_more)


@router.get("/batches/{batch_id}", summary="Get a batch", responses=openai_problems(*ONE))
async def get_batch(batch_id: BatchId, part: PartDep, scope: CollectionDep) -> BatchObject:
    """Return a batch as it is now."""
    return BatchObject.of(await part.batches.get(batch_id, scope=scope))


@router.post(
    "/batches/{batch_id}/cancel",
    summary="Cancel a batch",
    responses=openai_problems(*ONE, BatchStateError),
)
async def cancel_batch(batch_id: BatchId, part: PartDep, scope: CollectionDep) -> BatchObject:
    """Run no more lines of a batch; the answers that there are can soon be read."""
    return BatchObject.of(await part.batches.cancel(batch_id, scope=scope))
