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
from app.services.inference import InferenceService, Plan, Refuse
from app.services.prediction_log import EntryLog, PredictionLogEntry, to_ms

log = logging.getLogger(__name__)

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
        items: that were answered.
        texts: what the log is given of each.
        plan: as for the answer.
        refuse: likewise.
        columns: makes the columns of a log entry from a row.
        request_id: of the request.
        at_s: when it was answered, as `time.monotonic` counts.

    """

    task: TaskKey[Scheduler[Any]]
    model: str
    items: Sequence[Any]
    texts: Sequence[str]
    plan: Callable[[Any], Plan] | None
    refuse: Refuse | None
    columns: Callable[[Any], Mapping[str, Any]]
    request_id: str
    at_s: float


class Shadows:
    """Takes copies, and runs one after the other.

    Args:
        registry: has the models.
        inference: runs them.
        entries: returns where answers are logged.
        metrics: where it counts.
        bound: texts that may wait; more are dropped.

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
        self._texts = 0  # that wait
        self._has_any = asyncio.Event()

    def has_shadow(self, name: str) -> bool:
        """Say whether a model has a shadow that is loaded."""
        model = self._registry.find(name)
        return model is not None and bool(model.shadows)

    def copy(self, copy: ShadowCopy) -> None:
        """Take a copy, or drop and count it; never waits, never raises."""
        if self._texts + len(copy.texts) > self._bound:
            self._count(copy, "full")
            return
        self._waiting.append(copy)
        self._texts += len(copy.texts)
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
        self._texts -= len(copy.texts)
        if not self._waiting:
            self._has_any.clear()

    def _count(self, copy: ShadowCopy, outcome: str) -> None:
        self._metrics.shadow_copies.labels(copy.model, outcome).inc(len(copy.texts))

    async def _run(self, copy: ShadowCopy) -> None:
        """Run a copy on each shadow of its model."""
        model = self._registry.find(copy.model)
        for version in model.shadows if model is not None else ():
            try:
                await self._run_on(version, copy)
            except Exception:
                self._count(copy, "failed")
                log.exception("shadow_crashed", extra={"model": copy.model, "version": version})

    async def _run_on(self, version: str, copy: ShadowCopy) -> None:
        began_s = time.monotonic()
        request_id.set(copy.request_id)
        version_choice.set(VersionChoice(wanted=version))
        rows: Sequence[Any]
        try:
            inference = await self._inference.run(
                copy.task,
                copy.items,
                model_name=copy.model,
                deadline=Deadline.after(RUN_S),
                plan=copy.plan,
                refuse=copy.refuse,
            )
            rows = inference.rows
        except ServiceError as error:
            rows = [error] * len(copy.texts)
        shared: dict[str, Any] = {
            "task": copy.task,
            "model": copy.model,
            "version": version,
            "request_id": copy.request_id,
            "latency_ms": to_ms(time.monotonic() - began_s),
        }
        entries, failed = self._entries(), 0
        for text, row in zip(copy.texts, rows, strict=True):
            if isinstance(row, ServiceError):
                failed += 1
                columns: Mapping[str, Any] = {"status": row.status, "error": row.code}
            else:
                columns = copy.columns(row)
            entries.put(PredictionLogEntry(input=text, **shared, **columns))
        self._metrics.shadow_copies.labels(copy.model, "failed").inc(failed)
        self._metrics.shadow_copies.labels(copy.model, "done").inc(len(rows) - failed)
