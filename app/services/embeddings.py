"""Embedding: which vectors a request can ask for, and which vectors can be compared."""

from dataclasses import dataclass

import numpy as np

from app.batching.base import Scheduler
from app.batching.requests import Row
from app.engines.base import Embedder, FloatArray, Task
from app.engines.room import refuse_without_room
from app.engines.rows import RowsRefusedError
from app.engines.vector_rules import VectorRules
from app.models.registry import TaskKey
from app.services.inference import Inference, Plan
from app.services.places import Place, whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of texts, in their order."""

    model: str
    version: str  # of the model's files
    rules: VectorRules  # the model's
    vectors: FloatArray  # (texts, dimensions), of length 1 where the model's own are
    truncated: tuple[int, ...]  # indexes of the texts that were cut to the model's window
    tokens: int  # of all texts, after cutting

    @property
    def dimensions(self) -> int:
        """How many each vector has."""
        return int(self.vectors.shape[1])

    @property
    def space(self) -> str:
        """Which vectors can be compared with these."""
        return space_of(self.model, self.version, self.rules)


def space_of(model: str, version: str, rules: VectorRules) -> str:
    """Return the name of the vectors that can be compared with a model's.

    Stored vectors are found by it. The edition tells apart what was made with other settings.
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


EMBEDDERS = TaskKey[Scheduler[Embedder]](Task.EMBEDDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingParameters:
    """What a request asks for; without a prompt or dimensions the model's own defaults hold."""

    prompt_name: str | None = None
    dimensions: int | None = None

    def plan(self, engine: Embedder) -> Plan:
        """Return how an embedder runs the texts.

        Raises:
            UnsupportedFieldError: the model has no such prompt, no tokens left after it, or fewer
                dimensions.

        """
        rules = engine.vector_rules
        rules.refuse_beyond(self.dimensions, width=engine.dimensions)
        refuse_without_room(engine, self.prompt_name)
        return Plan(
            prompt=rules.prompt(self.prompt_name),
            shape=lambda row: shaped(rules, row, self.dimensions),
        )


def embeddings_of(inference: Inference[Embedder], *, place: Place) -> Embeddings:
    """Return the vectors of all texts; raises as `whole`."""
    return Embeddings(
        model=inference.model,
        version=inference.version,
        rules=inference.engine.vector_rules,
        vectors=np.stack(whole(inference.rows, place)),
        truncated=tuple(np.flatnonzero(inference.is_truncated).tolist()),
        tokens=inference.tokens,
    )
