"""Models that are loaded when they are first asked, and go again when nobody asks or room is short.

The classical cache: what was used least recently goes first, and never what is lent or awaited.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from app.core.metrics import Metrics
from app.errors import EngineError, ModelNotReadyError, StartupError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState
from app.models.leases import LOADING_RETRY_S

log = logging.getLogger(__name__)

# After which a model that couldn't be loaded is tried again: its files, or a hub, may be back.
FAILED_RETRY_S = 30.0
NO_ROOM = "Other models that are in use take the memory that this one needs."
# Returns the bytes that a model takes, about; blocks.
Size = Callable[[ModelSpec], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The memory that models on demand may take together.

    Args:
        size: of a model, in bytes.
        limit_bytes: of all; None: as much as there is.

    """

    size: Size = lambda _: 0
    limit_bytes: int | None = None


class _Models(Protocol):
    """What is needed of a registry."""

    @property
    def all_entries(self) -> tuple[ModelEntry, ...]: ...

    async def bring(self, entry: ModelEntry) -> None: ...

    def drop(self, entry: ModelEntry) -> None: ...


class OnDemand:
    """Loads and unloads the models of `load = "lazy"`. Use it on the event loop only.

    Args:
        models: the registry.
        metrics: where loads and evictions are counted.
        budget: of memory, for all of them.

    """

    def __init__(
        self,
        models: _Models,
        *,
        metrics: Metrics,
        budget: Budget,
    ) -> None:
        self._models = models
        self._metrics = metrics
        self._budget = budget
        self._sizes: dict[str, int] = {}  # of those that were loaded once, by their labels
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._turn = asyncio.Lock()  # one makes room at a time

    def is_asleep(self, entry: ModelEntry) -> bool:
        """Say whether a request has to wait for this model to be loaded, or to be tried again."""
        if not entry.spec.is_lazy or entry.state is ModelState.READY:
            return False
        since_s = time.monotonic() - (entry.began_s or 0.0)
        return entry.state is not ModelState.FAILED or since_s > FAILED_RETRY_S

    async def wake(self, entry: ModelEntry, *, until_s: float) -> None:
        """Load a model; it goes on when the time is up, or the caller leaves.

        Args:
            entry: the model.
            until_s: as `time.monotonic` counts.

        Raises:
            ModelNotReadyError: it isn't loaded by then, or there is no room for it now.

        """
        with _awaiting(entry):
            loading = self.begin(entry)
            await asyncio.wait({loading}, timeout=max(0.0, until_s - time.monotonic()))
            if not loading.done():
                raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
            loading.result()
            if entry.state is ModelState.READY:
                self.note_used(entry)  # here already: else it might go before its first lease

    def begin(self, entry: ModelEntry) -> asyncio.Task[None]:
        """Begin to load a model, or return the load that runs."""
        name = entry.label
        if (running := self._loading.get(name)) is not None:
            return running
        task = self._loading[name] = asyncio.create_task(self._load(entry))
        task.add_done_callback(lambda _: self._loading.pop(name))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _load(self, entry: ModelEntry) -> None:
        """Make room and load; a failure is the entry's, as `ModelRegistry.bring` notes it."""
        outcome = "failed"
        try:
            async with self._turn:
                await self._make_room(entry)
                await self._models.bring(entry)
            outcome = "loaded"
        except ModelNotReadyError:
            outcome = "no_room"
            raise
        except StartupError:
            log.debug("on_demand_failed", extra={"model": entry.label})  # `bring` has told it
        finally:
            self._metrics.on_demand_loads.labels(entry.label, outcome).inc()

    async def _make_room(self, entry: ModelEntry) -> None:
        """Unload what was used least recently, until the model fits into the budget.

        Raises:
            ModelNotReadyError: what is lent or awaited takes too much.
            StartupError: it alone is larger than the budget, or its files aren't there.

        """
        limit_bytes = self._budget.limit_bytes
        if limit_bytes is None:
            return
        name = entry.label
        try:
            wanted = await asyncio.to_thread(self._budget.size, entry.to_load)
            if wanted > limit_bytes:
                mib = 2**20
                raise EngineError(
                    f"it takes about {wanted // mib} MiB, more than MODELS_MEMORY_MB allows for all"
                )
        except StartupError as failure:
            entry.fail(failure)
            entry.began_s = time.monotonic()
            log.warning("model_failed", extra={"model": name, "reason": failure.line})
            raise
        self._sizes[name] = wanted
        loaded = [one for one in self._lazy() if one.served is not None and one is not entry]
        taken = sum(self._sizes.get(one.label, 0) for one in loaded)
        free = (one for one in sorted(loaded, key=lambda one: one.used_s) if not _is_held(one))
        while taken + wanted > limit_bytes:
            oldest = next(free, None)
            if oldest is None:
                raise ModelNotReadyError(NO_ROOM, retry_after_s=LOADING_RETRY_S)
            taken -= self._sizes.get(oldest.label, 0)
            self._drop(oldest, "budget")

    def note_used(self, entry: ModelEntry) -> None:
        """Note that a model was asked now; it goes when it hasn't been for `idle_unload_s`."""
        entry.used_s = time.monotonic()
        if entry.spec.idle_unload_s is not None and entry.label not in self._timers:
            self._watch(entry, entry.spec.idle_unload_s)

    def _watch(self, entry: ModelEntry, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[entry.label] = loop.call_later(seconds, self._look, entry)

    def _look(self, entry: ModelEntry) -> None:
        """Unload a model that nobody has asked for long enough, or look again later."""
        self._timers.pop(entry.label, None)
        idle_s = entry.spec.idle_unload_s
        if idle_s is None or entry.state is not ModelState.READY:
            return
        left_s = entry.used_s + idle_s - time.monotonic()
        if _is_held(entry):
            self._watch(entry, idle_s)
        elif left_s > 0:
            self._watch(entry, left_s)
        else:
            self._drop(entry, "idle")

    def _drop(self, entry: ModelEntry, reason: str) -> None:
        self._metrics.on_demand_unloads.labels(entry.label, reason).inc()
        log.info("model_unloaded", extra={"model": entry.label, "reason": reason})
        self._models.drop(entry)

    def _lazy(self) -> Iterable[ModelEntry]:
        return (one for one in self._models.all_entries if one.spec.is_lazy)

    def close(self) -> None:
        """Load nothing more, and look at nothing."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._loading.values():
            task.cancel()


def _is_held(entry: ModelEntry) -> bool:
    """Say whether a model is lent, or somebody waits for it."""
    return bool(entry.leases or entry.awaiting)


@contextmanager
def _awaiting(entry: ModelEntry) -> Iterator[None]:
    entry.awaiting += 1
    try:
        yield
    finally:
        entry.awaiting -= 1
