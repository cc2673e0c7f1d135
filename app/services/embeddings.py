"""Embedding: from texts to vectors, through a leased model and its batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from app.batching.deadline import Deadline
from app.batching.scheduler import BatchScheduler, Row
from app.engines.base import Embedder, FloatArray, Task
from app.engines.room import refuse_without_room
from app.engines.rows import RowsRefusedError
from app.engines.vector_rules import VectorRules
from app.errors import InferenceFailedError, ServiceError
from app.models.registry import ModelRegistry
from app.services.rows import RowReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of texts, in their order."""

    model: str
    version: str  # of the model's files
    rules: VectorRules  # the model's
    vectors: FloatArray  # (texts, dimensions), of length 1 where the model's own are
    truncated: tuple[int, ...]  # places of the texts that were cut to the model's window
    tokens: int  # of all texts, after cutting

    @property
    def dimensions(self) -> int:
        """How many each vector has."""
        return int(self.vectors.shape[1])

    @property
    def space(self) -> str:
        """Which vectors can be compared with these."""
        return space_of(self.model, self.version, self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request asks for; nothing: what the model does by itself."""

    prompt_name: str | None = None
    dimensions: int | None = None


def space_of(model: str, version: str, rules: VectorRules) -> str:
    """Return the name of the vectors that can be compared with a model's.

    Stored vectors are found by it. An edition sets apart what was made by other settings.
    """
    return f"{model}@{version}" + (f"+{rules.edition}" if rules.edition else "")


def shaped(rules: VectorRules, row: Row, dimensions: int | None = None) -> Row:
    """Return a row of an embedder as it is answered, or why it can't be."""
    if isinstance(row, Exception):
        return row
    try:
        return rules.shaped(row, dimensions)
    except RowsRefusedError as failure:
        return failure


AS_IT_IS = Wanted()


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
        wanted: Wanted = AS_IT_IS,
    ) -> Embeddings:
        """Embed texts, all or none: a missing vector would shift the others.

        Raises:
            UnsupportedFieldError: the model has no such prompt or no room behind it, or fewer
                dimensions.
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError, NotReadyError: as the scheduler says.
            InferenceFailedError: the engine can't do one of the texts; the detail says which.

        """
        with self._registry.lease(model_name, Task.EMBEDDING) as lease:
            scheduler = cast("BatchScheduler", lease.model)
            engine = cast("Embedder", scheduler.engine)
            rules = engine.vector_rules
            rules.refuse_beyond(wanted.dimensions, width=engine.dimensions)
            prompt = rules.prompt(wanted.prompt_name)
            refuse_without_room(engine, wanted.prompt_name)
            outcome = await scheduler.submit(texts, deadline=deadline, prompt=prompt)
        rows = [shaped(rules, row, wanted.dimensions) for row in outcome.rows]
        vectors = [self._reader.read(row, model=lease.spec.name) for row in rows]
        return Embeddings(
            model=lease.spec.name,
            version=lease.version,
            rules=rules,
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
