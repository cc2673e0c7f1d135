"""Models that are loaded when they are first asked, and go again when nobody asks or room is short.

The classical cache: what was used least recently goes first, and never what is lent or awaited.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

from app.core.metrics import Metrics
from app.errors import ModelNotReadyError, StartupError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState
from app.models.leases import LOADING_RETRY_S
from app.models.memory_budget import MemoryTaken, is_held

log = logging.getLogger(__name__)

# After which a model that couldn't be loaded is tried again: its files, or a hub, may be back.
FAILED_RETRY_S = 30.0
Measure = Callable[[ModelSpec], Awaitable[int]]
Load = Callable[[ModelEntry], Awaitable[None]]
Drop = Callable[[ModelEntry], None]


class OnDemand:
    """Loads and unloads the models of `load = "lazy"`. Use it on the event loop only.

    Args:
        measure: returns the bytes that a model takes, about; raises StartupError.
        load: loads a model beside the others; raises StartupError.
        drop: lends a model no more, unloads it, and calls `note_dropped`.
        metrics: where loads and evictions are counted.
        limit_bytes: that they may take together; None: as many as there are.

    """

    def __init__(
        self,
        *,
        measure: Measure,
        load: Load,
        drop: Drop,
        metrics: Metrics,
        limit_bytes: int | None,
    ) -> None:
        self._measure = measure
        self._load_model = load
        self._drop_model = drop
        self._metrics = metrics
        self._taken = MemoryTaken(limit_bytes) if limit_bytes is not None else None
        # By the identity of entries: after a change of the catalogue there may be two of a name.
        self._loading: dict[int, asyncio.Task[None]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}

    def is_asleep(self, entry: ModelEntry) -> bool:
        """Say whether a request has to wait for this model to be loaded, or to be tried again."""
        if not entry.spec.is_lazy or entry.state is ModelState.READY:
            return False
        since_s = time.monotonic() - (entry.began_s or 0.0)
        return entry.state is not ModelState.FAILED or since_s > FAILED_RETRY_S

    async def wake(self, entry: ModelEntry, *, until_s: float) -> None:
        """Load a model; it goes on when the time is up, or the caller leaves.

        Args:
            entry: the model; if it can't be loaded, it says why.
            until_s: as `time.monotonic` counts.

        Raises:
            ModelNotReadyError: it isn't loaded by then, there is no room for it now, or it was
                unloaded meanwhile.

        """
        with _awaiting(entry):
            loading = self.begin(entry)
            await asyncio.wait({loading}, timeout=max(0.0, until_s - time.monotonic()))
            if not loading.done() or loading.cancelled():
                raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
            with suppress(StartupError):
                loading.result()

    async def bring(self, entry: ModelEntry) -> None:
        """Load a model for an operator, however long it takes; it counts as used.

        Raises:
            StartupError: it can't be loaded; the entry says why.
            ModelNotReadyError: there is no room for it now, or it was unloaded meanwhile.

        """
        if entry.state is ModelState.READY:
            self.note_used(entry)
            return
        loading = self.begin(entry)
        await asyncio.wait({loading})
        if loading.cancelled():
            raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
        loading.result()

    def begin(self, entry: ModelEntry) -> asyncio.Task[None]:
        """Begin to load a model, or return the load that runs."""
        key = id(entry)
        if (running := self._loading.get(key)) is not None:
            return running
        task = self._loading[key] = asyncio.create_task(self._load(entry))
        task.add_done_callback(lambda _: self._loading.pop(key))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    async def _load(self, entry: ModelEntry) -> None:
        """Make room and load; raises as `bring`."""
        outcome = "failed"
        try:
            await self._make_room(entry)
            await self._load_model(entry)
            self.note_used(entry)
            outcome = "loaded"
        except ModelNotReadyError:
            outcome = "no_room"
            raise
        except asyncio.CancelledError:
            outcome = "dropped"
            raise
        except StartupError:
            entry.began_s = time.monotonic()  # the next try is after a pause, however long it took
            raise
        finally:
            if self._taken is not None and entry.state is not ModelState.READY:
                self._taken.release(entry)
            self._metrics.on_demand_loads.labels(entry.label, outcome).inc()

    async def _make_room(self, entry: ModelEntry) -> None:
        """Unload what was used least recently, so that the model fits into the budget.

        Raises:
            ModelNotReadyError: what is lent or awaited takes too much.
            StartupError: it alone is larger than the budget, or its files aren't there.

        """
        if self._taken is None:
            return
        try:
            entry.size_bytes = await self._measure(entry.to_load)
            self._taken.check(entry)
        except StartupError as failure:
            entry.fail(failure)
            log.warning("model_failed", extra={"model": entry.label, "reason": failure.line})
            raise
        for displaced in self._taken.reserve(entry):
            self._drop(displaced, "budget")
        await self._taken.await_freed()

    def note_used(self, entry: ModelEntry) -> None:
        """Note that a model was asked now; it goes when it hasn't been for `idle_unload_s`."""
        entry.used_s = time.monotonic()
        if entry.state is ModelState.READY and id(entry) not in self._timers:
            self._watch(entry)

    def note_dropped(self, entry: ModelEntry, closing: asyncio.Task[None] | None) -> None:
        """Note that a model is lent no more, and load it no further.

        Args:
            entry: the model.
            closing: after which its memory is free; None: it wasn't loaded.

        """
        self._forget_timer(entry)
        if (loading := self._loading.get(id(entry))) is not None:
            loading.cancel()  # what comes of it is closed
        if self._taken is not None and closing is not None:
            self._taken.note_dropped(entry, closing)

    def _watch(self, entry: ModelEntry, seconds: float | None = None) -> None:
        """Look at a model in so many seconds; None: in those after which it is idle."""
        if seconds is None:
            seconds = entry.spec.idle_unload_s
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timers[id(entry)] = loop.call_later(seconds, self._look, entry)

    def _forget_timer(self, entry: ModelEntry) -> None:
        if (timer := self._timers.pop(id(entry), None)) is not None:
            timer.cancel()

    def _look(self, entry: ModelEntry) -> None:
        """Unload a model that nobody has asked for long enough, or look again later."""
        del self._timers[id(entry)]
        left_s = entry.used_s + (entry.spec.idle_unload_s or 0.0) - time.monotonic()
        if is_held(entry):
            self._watch(entry)
        elif left_s > 0:
            self._watch(entry, left_s)
        else:
            self._drop(entry, "idle")

    def _drop(self, entry: ModelEntry, reason: str) -> None:
        self._metrics.on_demand_unloads.labels(entry.label, reason).inc()
        log.info("model_unloaded", extra={"model": entry.label, "reason": reason})
        self._drop_model(entry)

    def close(self) -> None:
        """Load nothing more, and look at nothing."""
        for timer in self._timers.values():
            timer.cancel()
        for task in self._loading.values():
            task.cancel()


@contextmanager
def _awaiting(entry: ModelEntry) -> Iterator[None]:
    entry.awaiting += 1
    try:
        yield
    finally:
        entry.awaiting -= 1
