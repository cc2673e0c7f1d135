"""`/v1/models`: the models that OpenAI's clients can use."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app.engines.base import Task
from app.errors import ModelNotFoundError, ModelNotReadyError, ModelUnavailableError
from app.features.openai.schemas import OpenAiModel, OpenAiModels
from app.http.deps import RegistryDep
from app.http.guard import get_caller
from app.http.json_route import JsonRoute
from app.http.problems import WITH_KEY, openai_problems
from app.models.entries import ModelEntry, ModelState, Servable
from app.models.registry import ModelRegistry, TaskKey

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
# Tasks that OpenAI's API has; classification isn't one.
TASKS = frozenset({Task.CHAT, Task.EMBEDDING})


def _model(entry: ModelEntry) -> OpenAiModel:
    return OpenAiModel(id=entry.spec.name, created=int(entry.ready_at_s))


def _usable(registry: ModelRegistry) -> list[ModelEntry]:
    """Return the models that OpenAI's clients can use, once they are loaded."""
    return [entry for entry in registry.entries if entry.spec.task in TASKS]


@router.get(
    "/models",
    summary="List the models that are ready",
    responses=openai_problems(*WITH_KEY),
    dependencies=[Depends(get_caller)],
)
async def list_openai_models(registry: RegistryDep) -> OpenAiModels:
    """List the chat models and embedders that are ready."""
    ready = [entry for entry in _usable(registry) if entry.state_now is ModelState.READY]
    return OpenAiModels(data=[_model(entry) for entry in ready])


@router.get(
    "/models/{model}",
    summary="Show one model",
    responses=openai_problems(
        *WITH_KEY, ModelNotFoundError, ModelNotReadyError, ModelUnavailableError
    ),
    dependencies=[Depends(get_caller)],
)
async def show_openai_model(
    model: Annotated[str, Path(examples=["smollm2"])], registry: RegistryDep
) -> OpenAiModel:
    """Show one chat model or embedder; one that doesn't serve is 503."""
    entry = next((entry for entry in _usable(registry) if entry.spec.name == model), None)
    if entry is None:
        raise ModelNotFoundError
    # Leased only for its errors, which say why a model can't be used.
    with registry.lease(model, TaskKey[Servable](entry.spec.task)):
        return _model(entry)
