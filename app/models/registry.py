"""The ModelRegistry: loads models and their versions, lends them by lease, unloads them."""

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from app.core.metrics import Metrics
from app.core.version_choice import version_choice
from app.errors import ModelNotReadyError, ModelVersionNotFoundError
from app.models.catalog import Catalog
from app.models.closing import Replaced, Retired, close_unused
from app.models.entries import Loans, ModelEntry, ModelState, Servable
from app.models.leases import LOADING_RETRY_S, Lease, TaskKey, usable
from app.models.loads import CheckRoom, LoadModel, Loads, has_room
from app.models.memory_budget import Budget
from app.models.on_demand import OnDemand
from app.models.table import ModelTable
from app.models.version_metrics import hide_model, show_model
from app.models.versions import Model

__all__ = ["Lease", "LoadModel", "ModelRegistry", "TaskKey"]

log = logging.getLogger(__name__)

# That a model which was replaced has for the requests that it still runs.
REPLACED_S = 60.0


M = TypeVar("M", bound=Servable)


class ModelRegistry(ModelTable):
    """Holds the models of a catalogue and lends them out.

    The lifespan makes one, and tests make their own. Methods are called
    from the event loop; `load` runs in the executor's threads.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        load: LoadModel,
        executor: Executor,
        metrics: Metrics,
        check_room: CheckRoom = has_room,
        budget: Budget | None = None,
    ) -> None:
        super().__init__(catalog)
        self._metrics = metrics
        self._loads = Loads(
            load,
            executor=executor,
            metrics=metrics,
            find=self.entry,
            on_change=self._show,
            check_room=check_room,
        )
        self._retired = Retired()
        budget = budget or Budget()
        self._on_demand = OnDemand(
            measure=partial(self._loads.in_thread, budget.size),
            load=partial(self._loads.bring, beside_others=True),
            drop=self.drop,
            metrics=metrics,
            limit_bytes=budget.limit_bytes,
        )
        for model in self.models:
            show_model(model, metrics)

    async def load_all(self) -> None:
        """Load all models at once; an optional one that fails is logged and left out.

        Raises:
            StartupError: a required model could not be loaded; the message names it.

        """
        try:
            async with asyncio.TaskGroup() as group:
                for model in self.models:
                    for entry in model.to_bring:
                        group.create_task(self._loads.bring(entry))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def wake(self, name: str | None, task: str, *, until_s: float) -> None:
        """Load the model that `lease` would lend where it is loaded on demand, and isn't.

        Args:
            name: None for the task's default model.
            task: of the model.
            until_s: when to give up, as `time.monotonic` counts; the load goes on.

        Raises:
            ModelNotFoundError: no model of that name does this task.
            ModelNotReadyError: it isn't loaded by then, or there is no room for it now.

        """
        while self._on_demand.is_asleep(entry := self.for_task(name, task).entry):
            await self._on_demand.wake(entry, until_s=until_s)

    @contextmanager
    def lease(self, name: str | None, task: TaskKey[M]) -> Iterator[Lease[M]]:
        """Lease a model; the default one of the task when none is named.

        Which of its versions it is the request says, or the traffic (`core/version_choice.py`).

        Raises:
            ModelNotFoundError: no model of that name does this task.
            ModelVersionNotFoundError: it hasn't the version that the request names.
            ModelNotReadyError: it is still loading, or its processes are being started again.
            ModelUnavailableError: it could not be loaded, or it is gone.

        """
        model, choice = self.for_task(name, task), version_choice.get()
        entry = model.choose(choice)
        if entry.spec.is_lazy:
            self._ask(entry)
        served, loans = usable(entry), entry.loans
        version = entry.version_name or served.version
        if choice is not None:
            if choice.wanted not in {None, version}:
                raise ModelVersionNotFoundError
            choice.got.setdefault(model.spec.name, version)
        if model.has_versions:
            self._metrics.model_version_leases.labels(model.spec.name, version).inc()
        loans.count += 1
        loans.idle.clear()
        try:
            yield Lease(spec=entry.spec, model=task.of(served.model), version=version)
        finally:
            loans.count -= 1
            if entry.spec.is_lazy:
                entry.used_s = time.monotonic()
            if loans.count == 0:
                loans.idle.set()

    def _ask(self, entry: ModelEntry) -> None:
        """Note that a model of those on demand is asked; raises as `usable` where it isn't loaded.

        Who can wait has called `wake` before.
        """
        if self._on_demand.is_asleep(entry):
            self._on_demand.begin(entry)
            raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
        self._on_demand.note_used(entry)

    def _show(self, entry: ModelEntry) -> None:
        """Show in the metrics that an entry has changed."""
        if (model := self.find(entry.spec.name)) is not None:
            show_model(model, self._metrics)

    async def close(self, *, timeout_s: float) -> None:
        """Unload every model once its leases have ended, or when the time is up.

        A model that is still leased then is closed where that is safe. Else it stays until the
        process ends: freeing its memory during a call could crash the process.
        """
        self._on_demand.close()
        until_s = time.monotonic() + timeout_s
        entries = self.all_entries
        names = [*(one.label for one in entries), "those that were replaced"]
        failures = await asyncio.gather(
            *(self._unload(entry, until_s) for entry in entries),
            self._retired.close_all(until_s),
            return_exceptions=True,
        )
        for name, failure in zip(names, failures, strict=True):
            if isinstance(failure, BaseException):
                log.error("unload_failed", exc_info=failure, extra={"model": name})

    async def _unload(self, entry: ModelEntry, until_s: float) -> None:
        served, loans = entry.served, entry.loans
        entry.state, entry.served = ModelState.UNLOADED, None
        self._show(entry)
        if served is not None:
            await close_unused(Replaced(name=entry.label, served=served, loans=loans), until_s)

    async def forget(self, name: str, *, timeout_s: float) -> None:
        """Unload a model that other processes serve instead; its metrics are theirs then."""
        await self._unload(self.model(name).entry, time.monotonic() + timeout_s)
        self._metrics.model_ready.remove(name)

    async def reload(self, name: str, *, timeout_s: float = REPLACED_S) -> None:
        """Load a model anew beside what serves, put it in its place, and close the old one.

        What the old one still runs after `timeout_s` ends with an error where that is safe. One on
        demand that isn't loaded is loaded anew by its next request.

        Raises:
            StartupError: it can't be loaded; the old one goes on.

        """
        entry = self.model(name).entry
        if entry.spec.is_lazy and entry.state is not ModelState.READY:
            self.drop(entry)  # also what is being loaded, or failed
            return
        started = time.monotonic()
        served = await self._loads.call(entry.to_load)
        if entry.spec.is_lazy and entry.state is not ModelState.READY:  # it went meanwhile
            late = Replaced(name=entry.label, served=served, loans=Loans())
            await self._retired.close(late, timeout_s=timeout_s)
            return
        old, loans = entry.served, entry.loans
        entry.served, entry.loans = served, Loans()
        entry.reason = entry.detail = None
        self._loads.note_ready(entry, time.monotonic() - started)
        if old is None:
            return
        replaced = Replaced(name=entry.label, served=old, loans=loans)
        await self._retired.close(replaced, timeout_s=timeout_s)

    async def bring(self, entry: ModelEntry) -> None:
        """Load a version that isn't, beside those that serve, if there is room for it.

        One that is loaded on demand is counted as if a request had asked for it.

        Raises:
            StartupError: it can't be loaded; the entry says why.
            ModelNotReadyError: it is loaded on demand, and there is no room for it now.

        """
        if entry.spec.is_lazy:
            await self._on_demand.bring(entry)
            return
        if entry.state is ModelState.LOADING:  # by somebody else: once is enough
            await entry.settled.wait()
        if entry.state is ModelState.READY:
            return
        await self._loads.bring(entry, beside_others=True)

    def drop(self, entry: ModelEntry) -> None:
        """Lend a version no more; it is unloaded once its leases have ended."""
        served, loans = entry.served, entry.loans
        entry.state, entry.served, entry.loans = ModelState.UNLOADED, None, Loans()
        entry.reason = entry.detail = None
        self._show(entry)
        closing: asyncio.Task[None] | None = None
        if served is not None:
            replaced = Replaced(name=entry.label, served=served, loans=loans)
            closing = self._retired.close_soon(replaced, timeout_s=REPLACED_S)
        self._on_demand.note_dropped(entry, closing)

    def show(self, model: Model) -> None:
        """Show in the metrics that a model's traffic has changed."""
        show_model(model, self._metrics)

    def remove(self, name: str) -> None:
        """Lend a model no more, and forget it; it is unloaded once its leases have ended."""
        model = self.model(name)
        for entry in model.entries.values():
            self.drop(entry)
        self.take_out(name)
        hide_model(model, self._metrics)
