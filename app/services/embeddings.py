"""Embedding: from texts to unit vectors, through a leased model and its batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from app.batching.deadline import Deadline
from app.batching.scheduler import BatchScheduler
from app.engines.base import Embedder, FloatArray, Task
from app.errors import InferenceFailedError, ServiceError, UnsupportedFieldError
from app.models.registry import ModelRegistry
from app.services.rows import RowReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of texts, in their order."""

    model: str
    version: str  # of the model's files
    dimensions: int
    vectors: FloatArray  # (texts, dimensions), each of length 1
    truncated: tuple[int, ...]  # places of the texts that were cut to the model's window
    tokens: int  # of all texts, after cutting

    @property
    def space(self) -> str:
        """Which vectors can be compared with these."""
        return space_of(self.model, self.version)


def space_of(model: str, version: str) -> str:
    """Return the name of the vectors that can be compared with a model's."""
    return f"{model}@{version}"


class EmbeddingService:
    """Answers `/embed` and `/v1/embeddings`.

    Args:
        registry: lends the models.
        reader: makes errors of rows that failed.

    """

    def __init__(self, registry: ModelRegistry, reader: RowReader) -> None:
        self._registry = registry
        self._reader = reader

    async def embed(
        self,
        texts: Sequence[str],
        *,
        model_name: str | None,
        deadline: Deadline,
        dimensions: int | None = None,
    ) -> Embeddings:
        """Embed texts, all or none: a missing vector would shift the others.

        Raises:
            UnsupportedFieldError: vectors of other `dimensions` than the model's were asked for.
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError, NotReadyError: as the scheduler says.
            InferenceFailedError: the engine can't do one of the texts; the detail says which.

        """
        with self._registry.lease(model_name, Task.EMBEDDING) as lease:
            scheduler = cast("BatchScheduler", lease.model)
            own = cast("Embedder", scheduler.engine).dimensions
            if dimensions not in {None, own}:
                raise UnsupportedFieldError("dimensions")
            outcome = await scheduler.submit(texts, deadline=deadline)
        vectors = [self._reader.read(row, model=lease.spec.name) for row in outcome.rows]
        return Embeddings(
            model=lease.spec.name,
            version=lease.version,
            dimensions=own,
            vectors=np.stack([_vector(number, row) for number, row in enumerate(vectors)]),
            truncated=tuple(np.flatnonzero(outcome.is_truncated).tolist()),
            tokens=outcome.tokens,
        )


def _vector(number: int, row: FloatArray | ServiceError) -> FloatArray:
    if isinstance(row, InferenceFailedError):
        raise InferenceFailedError(f"The engine failed on texts[{number}].")
    if isinstance(row, ServiceError):
        raise row
    return row
