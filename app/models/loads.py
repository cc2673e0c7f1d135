"""Loads models in threads, and notes how each of them does."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor

from app.core.metrics import Metrics
from app.errors import EngineError, StartupError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState, Served

log = logging.getLogger(__name__)

# Loads and warms one model; blocks. Raises StartupError.
LoadModel = Callable[[ModelSpec], Served]


class Loads:
    """Loads the models of a registry.

    Args:
        load: runs in a thread.
        executor: its threads.
        metrics: where it counts.
        find: returns the entry of the model of that name, where there is one.
        on_change: called with an entry that serves now.

    """

    def __init__(
        self,
        load: LoadModel,
        *,
        executor: Executor,
        metrics: Metrics,
        find: Callable[[str], ModelEntry | None],
        on_change: Callable[[ModelEntry], None],
    ) -> None:
        self._load = load
        self._executor = executor
        self._metrics = metrics
        self._find = find
        self._on_change = on_change

    async def bring(self, entry: ModelEntry) -> None:
        """Bring one model from waiting to ready, or to failed."""
        name = entry.label
        started = time.monotonic()
        try:
            await self._await_used(entry.spec)
            entry.state = ModelState.LOADING
            entry.began_s = started = time.monotonic()
            entry.served = await self.call(entry.to_load)
        except StartupError as failure:
            entry.state, entry.reason = ModelState.FAILED, failure.reason
            entry.detail = failure.line
            if entry.is_required:
                raise type(failure)(f"model {name!r} (required): {failure.line}") from failure
            log.warning("model_failed", extra={"model": name, "reason": failure.line})
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
        """Run `load` in a thread; any other exception becomes an EngineError."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._load, spec)
        except StartupError:
            raise
        except Exception as failure:
            # Libraries that read model files can raise anything.
            log.exception("model_load_crashed", extra={"model": spec.name})
            raise EngineError(f"{type(failure).__name__}: {failure}") from failure
