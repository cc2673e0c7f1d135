"""Takes back a version that does worse than its model's rule allows."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable

from app.core.metrics import Metrics
from app.errors import ServiceError
from app.features.versions.judging import SERVER_ERROR, Answer, Window, judge
from app.models.registry import ModelRegistry
from app.models.rollback_rule import RollbackRule
from app.models.swaps import Swap, Swaps
from app.models.versions import Model
from app.services.prediction_log import EntryLog, PredictionLogEntry

log = logging.getLogger(__name__)

LOOK_S = 1.0


class Trials:
    """Sees every answer on its way to the log, and judges versions by them.

    Args:
        entries: the log.
        registry: has the models.
        swaps: takes versions back.
        metrics: where it counts.
        now_s: the time, as `time.monotonic` counts.

    """

    def __init__(  # each is of another part of the service
        self,
        entries: EntryLog,
        *,
        registry: ModelRegistry,
        swaps: Swaps,
        metrics: Metrics,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = entries
        self._registry = registry
        self._swaps = swaps
        self._metrics = metrics
        self._now_s = now_s
        self._windows: defaultdict[tuple[str, str], Window] = defaultdict(Window)
        self._over: dict[str, int] = {}  # looks in a row at which a model's bound was passed
        self._promoted: dict[str, tuple[str, float]] = {}  # the version, and when

    @property
    def keeps_entries(self) -> bool:
        """Whether the log does."""
        return self._entries.keeps_entries

    def put(self, entry: PredictionLogEntry) -> None:
        """Remember an answer of a model with a rule, and hand it on."""
        model = self._registry.find(entry.model)
        has_rule = model is not None and model.spec.rollback is not None
        if has_rule and entry.version is not None and not entry.shadow:
            self._windows[entry.model, entry.version].answers.append(
                Answer(
                    at_s=self._now_s(),
                    is_failed=entry.status >= SERVER_ERROR,
                    latency_ms=entry.latency_ms,
                    label=entry.label,
                )
            )
        self._entries.put(entry)

    async def note_swap(self, model: Model, swap: Swap) -> None:
        """Begin the trial of a version that was promoted here; anything else ends one."""
        name = model.spec.name
        self._over.pop(name, None)
        if swap.action == "promote" and swap.percent is None:
            self._promoted[name] = model.serving, self._now_s()
        else:
            self._promoted.pop(name, None)

    async def watch(self) -> None:
        """Look at all models, forever; one that takes long to be taken back delays no other."""
        async with asyncio.TaskGroup() as looks:
            while True:
                await asyncio.sleep(LOOK_S)
                looks.create_task(self.look())

    async def look(self) -> None:
        """Judge once, and take back what has been over its bound for long enough."""
        for model in self._registry.models:
            is_changing = self._swaps.running(model.spec.name) is not None
            if not is_changing and (rule := model.spec.rollback) is not None:
                await self._look_at(model, rule)

    async def _look_at(self, model: Model, rule: RollbackRule) -> None:
        name, pair = model.spec.name, self._on_trial(model, rule)
        reason = None
        if pair is not None:
            since_s = self._now_s() - rule.window_s
            tried, other = (self._windows[name, one].since(since_s) for one in pair)
            reason = judge(rule, tried, other)
        if pair is None or reason is None:
            self._over.pop(name, None)
            return
        self._over[name] = self._over.get(name, 0) + 1
        if self._over[name] >= rule.rounds:
            self._over.pop(name)
            await self._take_back(model, pair[0], reason)

    def _on_trial(self, model: Model, rule: RollbackRule) -> tuple[str, str] | None:
        """Return the version on trial and the one to compare it with; None: there is none.

        It is the one that shares the traffic with most weight, or that was promoted lately.
        """
        if model.is_shared:
            others = [one for one in model.entries if one != model.serving]
            return max(others, key=model.weights.__getitem__), model.serving
        version, at_s = self._promoted.get(model.spec.name, ("", 0.0))
        is_new = version == model.serving and self._now_s() - at_s < rule.trial_s
        return (version, model.previous) if is_new and model.previous else None

    async def _take_back(self, model: Model, version: str, reason: str) -> None:
        name = model.spec.name
        fields = {"model": name, "version": version, "reason": reason}
        try:
            await self._swaps.begin(Swap(action="rollback", model=name, by=f"rule: {reason}"))
        except ServiceError as failure:
            log.error("model_rollback_failed", extra={**fields, "failure": failure.detail})  # noqa: TRY400
            return
        self._windows.pop((name, version), None)
        self._metrics.model_rollbacks.labels(name, reason.split(maxsplit=1)[0]).inc()
        log.warning("model_rolled_back", extra=fields)
