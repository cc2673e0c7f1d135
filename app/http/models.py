"""`/models`: what is served, and in which state it is."""

from fastapi import APIRouter, Depends

from app.engines.base import Task
from app.http.deps import RegistryDep
from app.http.guard import get_caller
from app.http.problems import WITH_KEY, problems
from app.http.schemas import ModelInfo, ModelList, VersionInfo
from app.models.entries import ModelEntry
from app.models.version_specs import VersionSpec
from app.models.versions import Model

router = APIRouter(tags=["models"], dependencies=[Depends(get_caller)])

# Tasks whose texts have a bound of characters; others are cut, or bounded by the body.
BOUNDED = frozenset({Task.CLASSIFICATION, Task.NER, Task.ZERO_SHOT})


def _version(entry: ModelEntry, version: VersionSpec, model: Model) -> VersionInfo:
    return VersionInfo(
        version=version.version,
        state=entry.state_now,
        serving=entry is model.entry,
        weight=model.weights[version.version],
        shadow=version.shadow,
        source=entry.to_load.source,
        reason=entry.reason_now,
        detail=entry.detail_now,
    )


def model_info(model: Model) -> ModelInfo:
    """Return what is told of a model."""
    entry = model.entry
    spec, served = entry.spec, entry.served
    engine = getattr(served.model, "engine", None) if served else None
    return ModelInfo(
        name=spec.name,
        task=spec.task,
        engine=engine.kind if engine else spec.engine,
        source=entry.to_load.source,
        default=entry.is_default,
        required=entry.is_required,
        load="lazy" if spec.is_lazy else None,
        state=entry.state_now,
        reason=entry.reason_now,
        detail=entry.detail_now,
        version=entry.version_name,
        versions=[
            _version(one, one.version, model) for one in model.entries.values() if one.version
        ]
        or None,
        device=engine.device if engine else None,
        labels=getattr(engine, "labels", None),
        max_chars=spec.limits.max_chars if spec.task in BOUNDED else None,
    )


@router.get(
    "/models",
    summary="List the models",
    responses=problems(*WITH_KEY),
    response_model_exclude_none=True,
)
async def list_models(registry: RegistryDep) -> ModelList:
    """List the models of the catalogue, those that could not be loaded too."""
    return ModelList(models=[model_info(model) for model in registry.models])
