"""Loads models in threads, and notes how each of them does."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

from app.core.metrics import Metrics
from app.errors import EngineError, StartupError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState, Served

log = logging.getLogger(__name__)

T = TypeVar("T")
# Loads and warms one model; blocks. Raises StartupError.
LoadModel = Callable[[ModelSpec], Served]
# Says whether a model can be loaded beside those that serve; blocks. Raises StartupError.
CheckRoom = Callable[[ModelSpec], None]


def has_room(spec: ModelSpec) -> None:
    """Say that there is room for any model."""


def _forget(_: Future[Any]) -> None:
    """Do nothing with what comes too late."""


def _close_late(future: Future[Served]) -> None:
    """Close a model that was loaded when nobody waited for it any more."""
    if not future.cancelled() and future.exception() is None:
        future.result().model.close(timeout_s=0)


class Loads:
    """Loads the models of a registry.

    Args:
        load: runs in a thread.
        executor: its threads.
        metrics: where it counts.
        find: returns the entry of the model of that name, where there is one.
        on_change: called with an entry that serves now.
        check_room: says whether a model can be loaded beside others.

    """

    def __init__(
        self,
        load: LoadModel,
        *,
        executor: Executor,
        metrics: Metrics,
        find: Callable[[str], ModelEntry | None],
        on_change: Callable[[ModelEntry], None],
        check_room: CheckRoom = has_room,
    ) -> None:
        self._load = load
        self._executor = executor
        self._metrics = metrics
        self._find = find
        self._on_change = on_change
        self._check_room = check_room

    async def bring(self, entry: ModelEntry, *, beside_others: bool = False) -> None:
        """Bring one model from waiting to ready, or to failed.

        Raises:
            StartupError: it can't be loaded, and is required, or is loaded beside those that serve.

        """
        name = entry.label
        started = time.monotonic()
        try:
            await self._await_used(entry.spec)
            entry.state = ModelState.LOADING
            entry.settled.clear()
            entry.began_s = started = time.monotonic()
            if beside_others:
                await self.in_thread(self._check_room, entry.to_load)
            entry.served = await self.call(entry.to_load)
            entry.reason = entry.detail = None
        except StartupError as failure:
            entry.fail(failure)
            if entry.is_required:
                raise type(failure)(f"model {name!r} (required): {failure.line}") from failure
            log.warning("model_failed", extra={"model": name, "reason": failure.line})
            if beside_others:
                raise
            return
        finally:
            entry.settled.set()
        self.note_ready(entry, time.monotonic() - started)

    async def _await_used(self, spec: ModelSpec) -> None:
        """Wait until the models that a class calls are loaded: it may call them while it loads.

        Raises:
            EngineError: one isn't served.

        """
        for name in spec.uses:
            used = self._find(name)
            if used is not None and used.spec.is_lazy:
                continue  # it is loaded when the class calls it
            if used is not None:
                await used.settled.wait()
            if used is None or used.served is None:
                why = "its task is not installed" if used is None else "it could not be loaded"
                raise EngineError(f"it uses {name!r}, which is not served: {why}")

    def note_ready(self, entry: ModelEntry, seconds: float) -> None:
        """Note that a model serves, and how long it took to load."""
        entry.state, entry.ready_at_s = ModelState.READY, time.time()
        self._on_change(entry)
        self._metrics.model_load_seconds.labels(entry.label).set(seconds)
        log.info("model_ready", extra={"model": entry.label, "seconds": round(seconds, 2)})

    async def call(self, spec: ModelSpec) -> Served:
        """Run `load` in a thread; raises as `in_thread`.

        A load can't be stopped: what comes of it when nobody waits any more is closed.
        """
        return await self.in_thread(self._load, spec, late=_close_late)

    async def in_thread(
        self,
        work: Callable[[ModelSpec], T],
        spec: ModelSpec,
        *,
        late: Callable[[Future[T]], None] = _forget,
    ) -> T:
        """Run what blocks in one of the threads that load, never in those that others need.

        Args:
            work: is called with the entry.
            spec: of the model.
            late: is called with what comes when nobody waits any more.

        Raises:
            StartupError: as `work`; any other exception becomes an EngineError.

        """
        future = self._executor.submit(work, spec)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(late)
            raise
        except StartupError:
            raise
        except Exception as failure:
            # Libraries that read model files can raise anything.
            log.exception("model_load_crashed", extra={"model": spec.name})
            raise EngineError(f"{type(failure).__name__}: {failure}") from failure
