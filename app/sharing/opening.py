"""Which models front ends share, and how a front end opens them."""

from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Final

from app.core.metrics import Metrics
from app.engines.base import CLASSIFYING, Task
from app.engines.llama_cpp.server import SUFFIX
from app.engines.loader import EngineTable
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import Served
from app.models.registry import LoadModel
from app.models.steps import LoadSteps
from app.sharing.link import EngineLink
from app.sharing.scheduler import SharedScheduler
from app.sharing.shared_model import NotSharedError

# What their engines are asked is tokens, and what they answer numbers.
SHARED_TASKS: Final = CLASSIFYING | {Task.EMBEDDING, Task.NER}


def is_shared(spec: ModelSpec, engines: EngineTable) -> bool:
    """Say whether a model can run in the engine's process: one for texts, on an engine of ours."""
    if spec.versions or spec.is_lazy:
        return False  # each front end has them itself
    kind = engines.kinds.get(spec.engine)
    # What `auto` gives to llama.cpp, whose tokeniser is in its own process. Of a folder with such a
    # file the process finds it out when it has its source, and leaves it to the front ends.
    is_gguf = (spec.source or "").endswith(SUFFIX)
    is_ours = kind is not None and kind.is_shared and not is_gguf
    return is_ours and engines.capability(spec.task) in SHARED_TASKS


def shared_part(catalog: Catalog, engines: EngineTable) -> Catalog:
    """Return the models that front ends share, each as required as it is among all."""
    specs = [spec for spec in catalog.specs if is_shared(spec, engines)]
    return Catalog(
        [
            spec.model_copy(
                update={
                    "default": catalog.default(spec.task) == spec.name,
                    "required": catalog.is_required(spec),
                }
            )
            for spec in specs
        ],
        folder=catalog.folder,
    )


@asynccontextmanager
async def open_link(
    address: str, shared: Catalog, *, steps: LoadSteps, metrics: Metrics
) -> AsyncIterator[EngineLink]:
    """Connect to the engine's process, and keep the connection during the block."""
    link = EngineLink(address, [spec.name for spec in shared.specs], steps=steps, metrics=metrics)
    async with link.running():
        yield link


def make_shared_load(
    link: EngineLink, *, tokenisers: Executor, metrics: Metrics, other: LoadModel
) -> LoadModel:
    """Return what loads an entry of the catalogue in a front end.

    Args:
        link: to the engine's process; a model of its own is waited for.
        tokenisers: threads in which texts are tokenised.
        metrics: where everything counts.
        other: loads the models that aren't shared.

    """

    def load(spec: ModelSpec) -> Served:
        model = link.models.get(spec.name)
        if model is None:
            return other(spec)
        try:
            facts = model.wait()
        except NotSharedError:
            return other(spec)
        scheduler = SharedScheduler(
            model, engine=facts.make_engine(), link=link, tokenisers=tokenisers, metrics=metrics
        )
        return Served(model=scheduler, version=facts.version, engine=model)

    return load
