"""The embedders of a worker: loaded when the first job needs one, and kept."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from app.batching.deadline import Deadline
from app.batching.scheduler import BatchScheduler
from app.engines.base import Embedder, FloatArray, Task
from app.errors import InferenceFailedError, ModelNotFoundError, ServiceError
from app.models.catalog import Catalog
from app.models.registry import LoadModel, Served
from app.services.chunks import OVERLAP_SHARE, Span, spans
from app.services.embeddings import space_of
from app.services.job_batches import Row

# Nobody waits at the other end of a job; its lease and its worker's time limit bound it.
BATCH_TIMEOUT_S = 600.0


class LoadedEmbedder:
    """One model with batches in front of it.

    Args:
        name: the model's in the catalogue.
        served: as `LoadModel` gave it; it lives as long as the process.

    """

    def __init__(self, name: str, served: Served) -> None:
        self.space = space_of(name, served.version)
        self._scheduler = cast("BatchScheduler", served.model)
        self._engine = cast("Embedder", self._scheduler.engine)
        window = self._engine.passage_tokens
        self._spans = partial(
            spans, window=window, overlap=int(window * OVERLAP_SHARE), offsets=self._engine.offsets
        )

    def spans(self, text: str) -> list[Span]:
        """Cut a text into passages that fit into the model's window."""
        return self._spans(text)

    async def embed(self, texts: Sequence[str]) -> list[Row]:
        """Return a vector for each text, or why there is none."""
        if not texts:
            return []
        deadline = Deadline(at_s=time.monotonic() + BATCH_TIMEOUT_S)
        rows = (await self._scheduler.submit(texts, deadline=deadline)).rows
        return [_row(row) for row in rows]


class JobEmbedders:
    """Finds the model of a job.

    Args:
        catalog: the models there are.
        load: loads one; blocks.

    """

    def __init__(self, catalog: Catalog, *, load: LoadModel) -> None:
        self._specs = {s.name: s for s in catalog.specs if s.task is Task.EMBEDDING}
        self._load: Callable[..., Served] = load
        self._loaded: dict[str, LoadedEmbedder] = {}

    async def find(self, name: str) -> LoadedEmbedder:
        """Return a model, loaded.

        Raises:
            ModelNotFoundError: this worker's catalogue has no such embedder.
            StartupError: it can't be loaded.

        """
        if name not in self._specs:
            raise ModelNotFoundError(f"The worker's catalogue has no embedder {name!r}.")
        if name not in self._loaded:
            served = await asyncio.to_thread(self._load, self._specs[name])
            self._loaded[name] = LoadedEmbedder(name, served)
        return self._loaded[name]


def _row(row: FloatArray | Exception) -> Row:
    if isinstance(row, Exception) and not isinstance(row, ServiceError):
        return InferenceFailedError()
    return row
