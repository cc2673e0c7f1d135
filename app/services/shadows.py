"""Copies of texts for shadows: run when nothing else runs, logged as answers that nobody gets."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.batching.base import Scheduler
from app.batching.deadline import Deadline
from app.core.log_context import request_id
from app.core.metrics import Metrics
from app.core.version_choice import VersionChoice, version_choice
from app.errors import ServiceError
from app.models.registry import ModelRegistry, TaskKey
from app.services.inference import Inference, InferenceService, Plan, Refuse
from app.services.prediction_log import EntryLog, PredictionLogEntry, to_ms

log = logging.getLogger(__name__)

# Of an entry of the log, by their names.
Columns = Mapping[str, Any]

# After which a copy that found no idle moment is dropped: it would only grow older.
PATIENCE_S = 10.0
# Between two looks whether anything runs; no request notes its end for us.
LOOK_S = 0.02
# Of a copy's own run.
RUN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowCopy:
    """What a shadow is to run.

    Args:
        task: of the model.
        model: its name.
        version: that answered.
        items: that were answered.
        texts: what the log is given, of each or of all together.
        answer: makes for each of these texts the columns of its log entry, or its error; raises
            if there is none for all. Called in a thread.
        plan: as for the answer.
        refuse: likewise.
        request_id: of the request.
        at_s: when it was answered, as `time.monotonic` counts.

    """

    task: TaskKey[Scheduler[Any]]
    model: str
    version: str
    items: Sequence[Any]
    texts: Sequence[str]
    answer: Callable[[Inference[Any]], Sequence[Columns | ServiceError]]
    plan: Callable[[Any], Plan] | None
    refuse: Refuse | None
    request_id: str
    at_s: float


class Shadows:
    """Takes copies, and runs one after the other.

    Args:
        registry: has the models.
        inference: runs them.
        entries: returns where answers are logged.
        metrics: where it counts.
        bound: items that may wait; more are dropped.

    """

    def __init__(
        self,
        registry: ModelRegistry,
        inference: InferenceService,
        *,
        entries: Callable[[], EntryLog],
        metrics: Metrics,
        bound: int,
    ) -> None:
        self._registry = registry
        self._inference = inference
        self._entries = entries
        self._metrics = metrics
        self._bound = bound
        self._waiting: deque[ShadowCopy] = deque()
        self._items = 0  # that wait
        self._has_any = asyncio.Event()

    def of(self, name: str, version: str) -> list[str]:
        """Return the shadows of a model that are loaded, and that are to get a copy.

        Args:
            name: of the model.
            version: that answered; a shadow with a share of the traffic may be that itself.

        """
        model = self._registry.find(name)
        return [one for one in model.shadows if one != version] if model is not None else []

    def copy(self, copy: ShadowCopy) -> None:
        """Take a copy, or drop and count it; never waits, never raises."""
        if self._items + len(copy.items) > self._bound:
            self._count(copy, "full")
            return
        self._waiting.append(copy)
        self._items += len(copy.items)
        self._has_any.set()

    async def run(self) -> None:
        """Run copies, forever."""
        while True:
            await self._has_any.wait()
            copy = self._waiting[0]
            if self._registry.is_idle:
                self._take()
                await self._run(copy)
            elif time.monotonic() - copy.at_s > PATIENCE_S:
                self._take()
                self._count(copy, "late")
            else:
                await asyncio.sleep(LOOK_S)

    def _take(self) -> None:
        copy = self._waiting.popleft()
        self._items -= len(copy.items)
        if not self._waiting:
            self._has_any.clear()

    def _count(self, copy: ShadowCopy, outcome: str) -> None:
        self._metrics.shadow_copies.labels(copy.model, outcome).inc(len(copy.texts))

    async def _run(self, copy: ShadowCopy) -> None:
        """Run a copy on each shadow of its model."""
        for version in self.of(copy.model, copy.version):
            try:
                await self._run_on(version, copy)
            except Exception:
                self._count(copy, "failed")
                log.exception("shadow_crashed", extra={"model": copy.model, "version": version})

    async def _run_on(self, version: str, copy: ShadowCopy) -> None:
        began_s = time.monotonic()
        request_id.set(copy.request_id)
        version_choice.set(VersionChoice(wanted=version))
        answers: Sequence[Columns | ServiceError]
        try:
            inference = await self._inference.run(
                copy.task,
                copy.items,
                model_name=copy.model,
                deadline=Deadline.after(RUN_S),
                plan=copy.plan,
                refuse=copy.refuse,
            )
            answers = await asyncio.to_thread(copy.answer, inference)
        except ServiceError as error:
            answers = [error] * len(copy.texts)
        shared: dict[str, Any] = {
            "task": copy.task,
            "model": copy.model,
            "version": version,
            "request_id": copy.request_id,
            "latency_ms": to_ms(time.monotonic() - began_s),
            "shadow": True,
        }
        entries, failed = self._entries(), 0
        for text, answer in zip(copy.texts, answers, strict=True):
            columns = answer
            if isinstance(columns, ServiceError):
                failed += 1
                columns = {"status": columns.status, "error": columns.code}
            entries.put(PredictionLogEntry(input=text, **shared, **columns))
        self._metrics.shadow_copies.labels(copy.model, "failed").inc(failed)
        self._metrics.shadow_copies.labels(copy.model, "done").inc(len(answers) - failed)
