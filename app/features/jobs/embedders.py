"""The embedders of a worker: loaded when the first job needs one, and kept."""

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter

from app.batching.deadline import Deadline
from app.batching.scheduler import Row as SchedulerRow
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
from app.models.registry import LoadModel, Served
from app.services.embeddings import EMBEDDERS, shaped, space_of

# Nobody waits at the other end of a job; a batch may be one document of 100,000 characters.
BATCH_TIMEOUT_S = 240.0
STUCK_SHARE = 0.5  # of it: a call that has run for longer never ends
# A text that every model can embed: where it fails too, the others aren't to blame.
PROBE = ("good",)


class LoadedEmbedder:
    """One model with batches in front of it.

    Args:
        name: the model's in the catalogue.
        served: as `LoadModel` gave it; it lives as long as the process.
        timeout_s: seconds that a batch may take.

    Raises:
        EngineError: no text fits behind the prompt for documents.

    """

    def __init__(self, name: str, served: Served, *, timeout_s: float = BATCH_TIMEOUT_S) -> None:
        self.is_broken = False  # for good: only another process can help
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
        """Return a vector for each document's text, or why there is none.

        Raises:
            EngineError: the engine is broken, so that nothing can be said of the texts.
            OverloadedError: they are more than can be done in time.
            DeadlineExceededError: it took longer than was to be expected.

        """
        if not texts:
            return []
        # Texts that wait side by side in the queue share a batch, and what is of one length needs
        # no padding there.
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        answered = await self._rows([texts[place] for place in order])
        if any(isinstance(row, InferenceFailedError) for row in answered):
            await self._probe()
        return [row for _, row in sorted(zip(order, answered, strict=True), key=itemgetter(0))]

    async def _probe(self) -> None:
        """See that the engine isn't to blame for texts that failed."""
        try:
            rows = await self._rows(PROBE)
        except (DeadlineExceededError, OverloadedError):
            return  # it works, on something else
        if any(isinstance(row, InferenceFailedError) for row in rows):
            self.is_broken = True
            raise EngineError("The engine fails on every text.")

    async def _rows(self, texts: Sequence[str]) -> list[Row]:
        deadline = Deadline(at_s=time.monotonic() + self._timeout_s)
        try:
            rows = await self._submit(texts, deadline)
        except DeadlineExceededError:
            # Others may have been before it; a single call never takes so long.
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
        """Return rows as the index compares them."""
        outcome = await self._scheduler.submit(texts, deadline=deadline, prompt=self._prompt)
        rows = (shaped(self._rules, row) for row in outcome.rows)
        return [r if isinstance(r, Exception) else self._rules.comparable(r) for r in rows]


class JobEmbedders:
    """Finds the model of a job.

    Args:
        catalog: the models there are.
        load: loads one; blocks.

    """

    def __init__(self, catalog: Catalog, *, load: LoadModel) -> None:
        self._specs = {s.name: s for s in catalog.specs if s.task == Task.EMBEDDING}
        self._load: Callable[..., Served] = load
        self._loaded: dict[str, LoadedEmbedder] = {}

    @property
    def are_broken(self) -> bool:
        """Whether this process can't embed any more, with one of the models at least."""
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
