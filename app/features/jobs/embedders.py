"""The embedders of a worker: each loaded for the first job that needs it, then kept."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

from app.batching.deadline import Deadline
from app.batching.requests import Row as SchedulerRow
from app.engines.base import FloatArray, Task
from app.engines.room import room_behind
from app.engines.vector_rules import DOCUMENT
from app.errors import (
    DeadlineExceededError,
    EngineError,
    InferenceFailedError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    ServiceError,
)
from app.features.documents.chunks import OVERLAP_SHARE, Span, spans
from app.features.jobs.batches import Row
from app.models.catalog import Catalog
from app.models.entries import Served
from app.models.registry import LoadModel
from app.services.embeddings import EMBEDDERS, shaped, space_of

# No client waits for a job's batch, and it may be one document of 100,000 characters.
BATCH_TIMEOUT_S = 240.0
STUCK_SHARE = 0.5  # of the timeout: a call that has run for longer hangs
# A text that every model can embed: if it fails too, the engine is broken, not the other texts.
PROBE = ("good",)


class LoadedEmbedder:
    """One model with its batching.

    Args:
        name: of the model in the catalogue.
        served: from `LoadModel`; it lives as long as the process.
        timeout_s: seconds that a batch may take.

    Raises:
        EngineError: no text fits behind the prompt for documents.

    """

    def __init__(self, name: str, served: Served, *, timeout_s: float = BATCH_TIMEOUT_S) -> None:
        self.is_broken = False  # for good: only a new process helps
        self._timeout_s = timeout_s
        self._scheduler = EMBEDDERS.of(served.model)
        self._engine = self._scheduler.engine
        self._rules = self._engine.vector_rules
        self.space = space_of(name, served.version, self._rules)
        self._prompt = self._rules.prompts[DOCUMENT]
        window = room_behind(self._engine, self._prompt)
        if window < 1:  # a document would have passages without end
            raise EngineError(f"model {name!r}: its prompt for documents leaves no room for a text")
        self._spans = partial(
            spans, window=window, overlap=int(window * OVERLAP_SHARE), offsets=self._engine.offsets
        )

    def spans(self, text: str) -> list[Span]:
        """Cut a text into passages that fit into the model's window, behind the prompt."""
        return self._spans(text)

    async def embed(self, texts: Sequence[str]) -> list[Row]:
        """Return a vector for each document's text, or its error.

        Raises:
            EngineError: the engine is broken, whatever the texts.
            OverloadedError: there are too many texts for the timeout.
            DeadlineExceededError: it took longer than the timeout.

        """
        if not texts:
            return []
        # Neighbours in the queue share a batch, and texts of one length need no padding there.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        rows = await self._rows([texts[place] for place in order])
        if any(isinstance(row, InferenceFailedError) for row in rows):
            await self._probe()
        return [row for _, row in sorted(zip(order, rows, strict=True), key=itemgetter(0))]

    async def _probe(self) -> None:
        """Check whether texts failed because the engine is broken."""
        try:
            rows = await self._rows(PROBE)
        except (DeadlineExceededError, OverloadedError):
            return  # it works on other texts
        if any(isinstance(row, InferenceFailedError) for row in rows):
            self.is_broken = True
            raise EngineError("The engine fails on every text.")

    async def _rows(self, texts: Sequence[str]) -> list[Row]:
        deadline = Deadline(at_s=time.monotonic() + self._timeout_s)
        try:
            rows = await self._submit(texts, deadline)
        except DeadlineExceededError:
            # It may have waited behind others; a single call never takes so long.
            if self._scheduler.longest_call_s() < self._timeout_s * STUCK_SHARE:
                raise
            self.is_broken = True
            raise EngineError("The engine hangs.") from None
        except NotReadyError as failure:
            rows = [failure]
        if any(isinstance(row, NotReadyError) for row in rows):
            self.is_broken = True
            raise EngineError("The engine's threads have died.")
        return [_row(row) for row in rows]

    async def _submit(self, texts: Sequence[str], deadline: Deadline) -> list[SchedulerRow]:
        """Return vectors as the index compares them."""
        outcome = await self._scheduler.submit(texts, deadline=deadline, prompt=self._prompt)
        rows = (shaped(self._rules, row) for row in outcome.rows)
        return [r if isinstance(r, Exception) else self._rules.comparable(r) for r in rows]


class JobEmbedders:
    """Loads and keeps the models of jobs.

    Args:
        catalog: of all models.
        load: loads one; blocks.

    """

    def __init__(self, catalog: Catalog, *, load: LoadModel) -> None:
        self._specs = {s.name: s for s in catalog.specs if s.task == Task.EMBEDDING}
        self._load: Callable[..., Served] = load
        self._loaded: dict[str, LoadedEmbedder] = {}

    @property
    def are_broken(self) -> bool:
        """Whether one of the loaded models can't be used in this process any more."""
        return any(embedder.is_broken for embedder in self._loaded.values())

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
