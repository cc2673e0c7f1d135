"""`/v2/repository`: which models there are, and loading and unloading them."""

from typing import Any

from fastapi import APIRouter, Depends, Response

from app.core.callers import Scope
from app.features.open_inference.requests import TensorRoute
from app.features.open_inference.routes import ModelPath
from app.http.deps import RegistryDep, RuntimeDep
from app.http.guard import CallerDep, Guard, get_caller
from app.http.swapping import carry_out
from app.models.entries import ModelEntry, ModelState
from app.models.schemas import Request
from app.models.swaps import Action, Swap

# The protocol's words; it has none for a process that is started again.
STATES = {
    ModelState.READY: "READY",
    ModelState.WAITING: "LOADING",
    ModelState.LOADING: "LOADING",
}
UNAVAILABLE = "UNAVAILABLE"


class IndexRequest(Request):
    """Which models are wanted."""

    ready: bool = False


class RepositoryParameters(Request):
    """What may be said of a load: nothing that would bring files or configuration."""

    unload_dependents: bool = False


class RepositoryRequest(Request):
    """How a model is to be loaded or unloaded."""

    parameters: RepositoryParameters = RepositoryParameters()


ALL = IndexRequest()
NO_PARAMETERS = RepositoryRequest()


def make_router() -> APIRouter:
    """Return the routes; docs/dialects.md has them, the OpenAPI document hasn't."""
    router = APIRouter(prefix="/v2/repository", route_class=TensorRoute, include_in_schema=False)
    admin = [Depends(Guard(Scope.ADMIN))]

    @router.post("/index", dependencies=[Depends(get_caller)])
    async def index(registry: RegistryDep, body: IndexRequest = ALL) -> list[dict[str, Any]]:
        """List all versions of all models."""
        entries = (_entry(entry) for entry in registry.all_entries)
        return [one for one in entries if not body.ready or one["state"] == "READY"]

    @router.post("/models/{model_name}/load", dependencies=admin)
    async def load(
        model_name: ModelPath,
        runtime: RuntimeDep,
        caller: CallerDep,
        body: RepositoryRequest = NO_PARAMETERS,  # noqa: ARG001  # is checked
    ) -> Response:
        """Load the versions of a model that get requests."""
        return await _do("load", model_name, runtime, caller)

    @router.post("/models/{model_name}/unload", dependencies=admin)
    async def unload(
        model_name: ModelPath,
        runtime: RuntimeDep,
        caller: CallerDep,
        body: RepositoryRequest = NO_PARAMETERS,  # noqa: ARG001  # is checked
    ) -> Response:
        """Unload a model."""
        return await _do("unload", model_name, runtime, caller)

    return router


async def _do(action: Action, model_name: str, runtime: RuntimeDep, caller: CallerDep) -> Response:
    swap = Swap(action=action, model=model_name, by=caller.name)
    is_done = await carry_out(swap, runtime)
    return Response(status_code=200 if is_done else 202)


def _entry(entry: ModelEntry) -> dict[str, Any]:
    return {
        "name": entry.spec.name,
        "version": entry.version_name or "",
        "state": STATES.get(entry.state_now, UNAVAILABLE),
        "reason": entry.detail_now or "",
    }
