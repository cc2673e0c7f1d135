"""`/v1/models`: the models that are served, those that OpenAI's clients can use first."""

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
from app.models.registry import TaskKey

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)
# Of tasks that OpenAI's API has; clients that are given no name take the first model.
FIRST = (Task.CHAT, Task.EMBEDDING)


def _model(entry: ModelEntry) -> OpenAiModel:
    name, task = entry.spec.name, entry.spec.task
    return OpenAiModel(id=name, created=int(entry.ready_at_s), tasks=[task])


def _place(entry: ModelEntry) -> int:
    return FIRST.index(entry.spec.task) if entry.spec.task in FIRST else len(FIRST)


@router.get(
    "/models",
    summary="List the models that are ready",
    responses=openai_problems(*WITH_KEY),
    dependencies=[Depends(get_caller)],
)
async def list_openai_models(registry: RegistryDep) -> OpenAiModels:
    """List the models that are ready, or will be when asked: chat models, embedders, others."""
    ready = [
        entry
        for entry in registry.entries
        if entry.is_asleep or entry.state_now is ModelState.READY
    ]
    return OpenAiModels(data=[_model(entry) for entry in sorted(ready, key=_place)])


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
    """Show one model; one that doesn't serve is 503."""
    entry = next((entry for entry in registry.entries if entry.spec.name == model), None)
    if entry is None:
        raise ModelNotFoundError
    if entry.is_asleep:  # a question must not wake it
        return _model(entry)
    # Leased only for its errors, which say why a model can't be used.
    with registry.lease(model, TaskKey[Servable](entry.spec.task)):
        return _model(entry)
