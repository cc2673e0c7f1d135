"""Changes which versions of a model are loaded and serve, while it serves."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.core.metrics import Metrics
from app.errors import (
    ModelLoadFailedError,
    ModelVersionNotFoundError,
    ServiceError,
    StartupError,
    SwapInProgressError,
    SwapRefusedError,
)
from app.models.applying import Applied, apply
from app.models.catalog import Catalog
from app.models.registry import ModelRegistry
from app.models.swap import Action, Swap, check_unload, only_other
from app.models.versions import Model, Traffic

__all__ = ["Action", "OnSwap", "Swap", "Swaps"]

log = logging.getLogger(__name__)

# Told of each model whose traffic has changed here; raises a ServiceError for who changed it.
OnSwap = Callable[[Model, Swap], Awaitable[None]]
APPLYING = "The catalogue is being read anew."
NO_VERSIONS = "The model has no versions: its entry has no [[models.versions]]."


class Swaps:
    """Does what operators want, one thing at a time for a model; call it on the event loop.

    What can't be loaded changes nothing. A swap goes on when its caller leaves; the end of the
    process ends it, and then what served before is what serves after the next start.

    Args:
        registry: has the models.
        metrics: where swaps are counted.

    """

    def __init__(self, registry: ModelRegistry, *, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._running: dict[str, tuple[Swap, asyncio.Task[Model]]] = {}
        self._applying: asyncio.Task[list[Applied]] | None = None
        self.on_swap: list[OnSwap] = []
        # Whether other processes of the service do what is decided here.
        self.is_followed = False

    def running(self, name: str) -> Swap | None:
        """Return what is being done with a model, if anything is."""
        return self._running[name][0] if name in self._running else None

    def begin(self, swap: Swap) -> asyncio.Task[Model]:
        """Begin a swap; the task has its result, or the ServiceError of why it failed.

        Raises:
            ModelNotFoundError, ModelVersionNotFoundError: the catalogue hasn't got it.
            SwapInProgressError: another one of this model hasn't ended.
            SwapRefusedError: it can't be done as the model is now.

        """
        model = self._registry.model(swap.model)
        if other := self.running(swap.model):
            of = f" of {other.version}" if other.version else ""
            raise SwapInProgressError(f"{other.action}{of} is in progress.")
        if self._applying is not None:
            raise SwapInProgressError(APPLYING)
        work = self._planned(model, swap)
        task = asyncio.create_task(self._run(model, swap, work))
        self._running[swap.model] = swap, task
        task.add_done_callback(lambda _: self._running.pop(swap.model))
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    def apply(self, catalog: Catalog) -> asyncio.Task[list[Applied]]:
        """Begin to take over a catalogue that has changed.

        Raises:
            SwapInProgressError: a model is being changed, or another catalogue taken over.

        """
        if self._applying is not None or self._running:
            raise SwapInProgressError(APPLYING if self._applying else None)
        task = self._applying = asyncio.create_task(apply(self._registry, catalog))
        task.add_done_callback(self._note_applied)
        return task

    def _note_applied(self, task: asyncio.Task[list[Applied]]) -> None:
        self._applying = None
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        """End what is being done."""
        tasks: list[asyncio.Task[Any]] = [task for _, task in self._running.values()]
        tasks += [self._applying] if self._applying else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _planned(self, model: Model, swap: Swap) -> Callable[[], Awaitable[None]]:
        """Return what is to be done; raises as `begin`."""
        names = self._named(model, swap.version)
        if swap.action == "load":
            return lambda: self._load(model, names)
        if swap.action == "unload":
            check_unload(model, swap.version)
            return lambda: self._unload(model, names, swap)
        if not model.has_versions:
            raise SwapRefusedError(NO_VERSIONS)
        if (traffic := swap.traffic) is not None:
            return lambda: self._switch(model, traffic)
        if swap.action == "rollback":
            return self._rolled_back(model, swap)
        name = swap.version or only_other(model)
        if name == model.serving and (swap.percent is not None or not model.is_shared):
            raise SwapRefusedError("This version serves already.")
        return lambda: self._promote(model, name, swap)

    def _named(self, model: Model, version: str | None) -> list[str]:
        """Return the versions that are meant; None: all that are used."""
        if version is None:
            return [name for name in model.entries if model.is_used(name)]
        if not model.has_versions and version == model.entry.version_name:
            return list(model.entries)
        if version not in model.entries:
            raise ModelVersionNotFoundError
        return [version]

    def _rolled_back(self, model: Model, swap: Swap) -> Callable[[], Awaitable[None]]:
        version = swap.version
        if version is None and not model.is_shared:
            version = model.previous
            if version is None:
                raise SwapRefusedError("No version served before this one.")
        name = version or model.serving
        return lambda: self._promote(model, name, swap)

    async def _run(self, model: Model, swap: Swap, work: Callable[[], Awaitable[None]]) -> Model:
        began_s = time.monotonic()
        fields: dict[str, Any] = {"model": swap.model, "action": swap.action, "by": swap.by}
        try:
            await work()
        except (ServiceError, StartupError) as failure:
            self._count(swap, "failed")
            line = failure.line if isinstance(failure, StartupError) else failure.detail
            log.warning("model_swap_failed", extra={**fields, "reason": line})
            if isinstance(failure, ServiceError):
                raise
            raise ModelLoadFailedError(line) from failure
        except asyncio.CancelledError:
            self._count(swap, "shutdown")
            raise
        except Exception:
            self._count(swap, "failed")
            log.exception("model_swap_crashed", extra=fields)
            raise
        self._count(swap, "done")
        seconds = round(time.monotonic() - began_s, 2)
        fields |= {"serving": model.serving, "weights": model.weights, "seconds": seconds}
        log.info("model_swapped", extra=fields)
        return model

    def _count(self, swap: Swap, outcome: str) -> None:
        self._metrics.model_swaps.labels(swap.model, swap.action, outcome).inc()

    async def _load(self, model: Model, names: list[str]) -> None:
        for name in names:
            await self._registry.bring(model.entries[name])

    async def _unload(self, model: Model, names: list[str], swap: Swap) -> None:
        for name in names:
            if name != model.serving:
                model.weights[name] = 0.0
            self._registry.drop(model.entries[name])
        self._registry.show(model)
        await self._tell(model, swap)

    async def _promote(self, model: Model, name: str, swap: Swap) -> None:
        """Let a version have its share, or all, and tell the others."""
        await self._switch(model, model.with_share(name, swap.percent))
        await self._tell(model, swap)

    async def _switch(self, model: Model, traffic: Traffic) -> None:
        """Load the versions that are to answer, let them, and unload those that don't any more."""
        for name in {traffic.serving, *(one for one, weight in traffic.weights.items() if weight)}:
            await self._registry.bring(model.entries[name])
        before = [one for one in model.entries if model.is_used(one)]
        model.take(traffic)
        for one in before:
            if not model.is_used(one):
                self._registry.drop(model.entries[one])
        self._registry.show(model)

    async def _tell(self, model: Model, swap: Swap) -> None:
        for tell in self.on_swap:
            await tell(model, swap)
