"""`/models/{model_name}/load`, `unload`, `promote` and `rollback`."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response

from app.core.callers import Scope
from app.errors import (
    CatalogRefusedError,
    ModelLoadFailedError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelVersionNotFoundError,
    NotReadyError,
    SwapInProgressError,
    SwapLostError,
    SwapRefusedError,
)
from app.features.versions.schemas import (
    AppliedList,
    AppliedModel,
    PromoteRequest,
    SwapRequest,
)
from app.http.deps import RuntimeDep, part
from app.http.guard import CallerDep, Guard
from app.http.json_route import JsonRoute
from app.http.models import model_info
from app.http.problems import WITH_BODY, WITH_KEY, problems
from app.http.schemas import ModelInfo
from app.http.swapping import WAIT_S, carry_out
from app.models.schemas import MAX_NAME_CHARS
from app.models.swaps import Swap
from app.runtime.applying import CatalogFile

router = APIRouter(
    prefix="/models/{model_name}",
    tags=["versions"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(Scope.ADMIN))],
)
LONGER = "It takes longer, and goes on; GET /models tells."
ERRORS = (
    *WITH_BODY,
    *WITH_KEY,
    ModelNotFoundError,
    ModelVersionNotFoundError,
    SwapInProgressError,
    SwapLostError,
    SwapRefusedError,
    ModelLoadFailedError,
    NotReadyError,
)
ACCEPTED: dict[int | str, dict[str, Any]] = {202: {"description": LONGER, "model": ModelInfo}}
RESPONSES = problems(*ERRORS) | ACCEPTED
catalogue_router = APIRouter(
    prefix="/models",
    tags=["versions"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(Scope.ADMIN))],
)
ModelPath = Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])]
CatalogDep = Annotated[CatalogFile, Depends(part(CatalogFile))]
ANY_VERSION = SwapRequest()
NEXT_VERSION = PromoteRequest()


async def _do(swap: Swap, runtime: RuntimeDep, response: Response) -> ModelInfo:
    if not await carry_out(swap, runtime):
        response.status_code = 202
    return model_info(runtime.registry.model(swap.model))


@router.post(
    "/load",
    summary="Load a model, or a version of it",
    responses=problems(*ERRORS, ModelNotReadyError) | ACCEPTED,
    response_model_exclude_none=True,
)
async def load(
    model_name: ModelPath,
    runtime: RuntimeDep,
    caller: CallerDep,
    response: Response,
    body: SwapRequest = ANY_VERSION,
) -> ModelInfo:
    """Load a version beside those that serve; requests may name it then. One that is loaded stays.

    Without a version: all of the model that get requests. For one on demand there may be no room
    beside others that are in use.
    """
    swap = Swap(action="load", model=model_name, version=body.version, by=caller.name)
    return await _do(swap, runtime, response)


@router.post(
    "/unload",
    summary="Unload a model, or a version of it",
    responses=RESPONSES,
    response_model_exclude_none=True,
)
async def unload(
    model_name: ModelPath,
    runtime: RuntimeDep,
    caller: CallerDep,
    response: Response,
    body: SwapRequest = ANY_VERSION,
) -> ModelInfo:
    """Unload a version once its requests have ended; the others take its part of the traffic.

    Without a version: the whole model, unless it is required.
    """
    swap = Swap(action="unload", model=model_name, version=body.version, by=caller.name)
    return await _do(swap, runtime, response)


@router.post(
    "/promote",
    summary="Let a version of a model answer",
    responses=RESPONSES,
    response_model_exclude_none=True,
)
async def promote(
    model_name: ModelPath,
    runtime: RuntimeDep,
    caller: CallerDep,
    response: Response,
    body: PromoteRequest = NEXT_VERSION,
) -> ModelInfo:
    """Load a version, check it, switch to it, and unload the one before once its requests ended.

    With `percent` it gets a part of the requests instead, beside the one that serves.
    """
    swap = Swap(
        action="promote",
        model=model_name,
        version=body.version,
        percent=body.percent,
        by=caller.name,
    )
    return await _do(swap, runtime, response)


@router.post(
    "/rollback",
    summary="Go back to the version before",
    responses=RESPONSES,
    response_model_exclude_none=True,
)
async def rollback(
    model_name: ModelPath,
    runtime: RuntimeDep,
    caller: CallerDep,
    response: Response,
    body: SwapRequest = ANY_VERSION,
) -> ModelInfo:
    """Give all requests to the version that serves, or else to the one that served before it."""
    swap = Swap(action="rollback", model=model_name, version=body.version, by=caller.name)
    return await _do(swap, runtime, response)


@catalogue_router.post(
    "/apply",
    summary="Read the catalogue anew",
    responses=problems(
        *WITH_KEY, CatalogRefusedError, SwapInProgressError, SwapRefusedError, NotReadyError
    )
    | {202: {"description": LONGER, "model": AppliedList}},
    response_model_exclude_none=True,
)
async def apply(catalogue: CatalogDep, response: Response) -> AppliedList:
    """Read the operator's file anew, and take over what has changed, as SIGHUP does.

    A model of which a version can't be loaded stays as it was, and says why. The file has to be
    one that needs no restart, else nothing changes.
    """
    applied = await catalogue.apply(wait_s=WAIT_S)
    if applied is None:
        response.status_code = 202
    return AppliedList(models=[AppliedModel(**asdict(one)) for one in applied or ()])
