"""The ModelRegistry: loads models and their versions, lends them by lease, unloads them."""

import asyncio
import logging
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import TypeVar

from app.core.metrics import Metrics
from app.core.version_choice import version_choice
from app.errors import (
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    ModelVersionNotFoundError,
)
from app.models.catalog import Catalog, ModelSpec
from app.models.closing import Replaced, close_unused
from app.models.entries import Loans, ModelEntry, ModelState, Servable, Served
from app.models.leases import Lease, TaskKey
from app.models.loads import LoadModel, Loads
from app.models.version_metrics import show_model
from app.models.versions import Model, model_of

__all__ = ["Lease", "LoadModel", "ModelRegistry", "TaskKey"]

log = logging.getLogger(__name__)

# Retry-After while a model loads; most load in seconds.
LOADING_RETRY_S = 2
# That a model which was replaced has for the requests that it still runs.
REPLACED_S = 60.0
RESTARTING = "The model's process has ended and is being started again."


M = TypeVar("M", bound=Servable)


class ModelRegistry:
    """Holds the models of a catalogue and lends them out.

    The lifespan makes one, and tests make their own. Methods are called
    from the event loop; `load` runs in the executor's threads.
    """

    def __init__(
        self, catalog: Catalog, *, load: LoadModel, executor: Executor, metrics: Metrics
    ) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._models = {spec.name: model_of(spec, catalog) for spec in catalog.specs}
        self._loads = Loads(
            load, executor=executor, metrics=metrics, find=self._entry, on_change=self._show
        )
        self._replaced: list[Replaced] = []  # that still serve the requests that they have
        for model in self._models.values():
            show_model(model, metrics)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Of every model the version that serves, in the order of the catalogue."""
        return tuple(model.entry for model in self._models.values())

    @property
    def all_entries(self) -> tuple[ModelEntry, ...]:
        """All versions of all models."""
        return tuple(one for model in self._models.values() for one in model.entries.values())

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model with its versions."""
        return tuple(self._models.values())

    @property
    def is_ready(self) -> bool:
        """Whether every required model serves, and one at all."""
        return self.serves and not any(entry.is_blocking for entry in self.entries)

    @property
    def serves(self) -> bool:
        """Whether any model serves."""
        return any(entry.state_now is ModelState.READY for entry in self.all_entries)

    @property
    def awaited(self) -> tuple[ModelEntry, ...]:
        """The models that `/ready` waits for: the required ones, or all if there are none."""
        blocking = tuple(entry for entry in self.entries if entry.is_blocking)
        if blocking or self.serves:
            return blocking
        return tuple(entry for entry in self.entries if entry.is_loading)

    async def load_all(self) -> None:
        """Load all models at once; an optional one that fails is logged and left out.

        Raises:
            StartupError: a required model could not be loaded; the message names it.

        """
        try:
            async with asyncio.TaskGroup() as group:
                for model in self.models:
                    for entry in model.used:
                        group.create_task(self._loads.bring(entry))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

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
        model, choice = self._find(name, task), version_choice.get()
        entry = model.choose(choice)
        served, loans = self._usable(entry), entry.loans
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
            if loans.count == 0:
                loans.idle.set()

    def spec(self, name: str | None, task: str) -> ModelSpec | None:
        """Return the entry of the model that `lease` would lend, whether it serves or not."""
        spec = self._catalog.get(name or self._catalog.default(task) or "")
        return spec if spec is not None and spec.task == task else None

    def task_of(self, name: str) -> str:
        """Return the task of a model of the catalogue, whether it serves or not.

        Raises:
            ModelNotFoundError: there is none of that name.

        """
        return self.model(name).spec.task

    def model(self, name: str) -> Model:
        """Return a model of the catalogue; raises as `task_of`."""
        if name not in self._models:
            raise ModelNotFoundError
        return self._models[name]

    def _find(self, name: str | None, task: str) -> Model:
        spec = self.spec(name, task)
        if spec is None:
            raise ModelNotFoundError
        return self._models[spec.name]

    def _entry(self, name: str) -> ModelEntry | None:
        """Return the version that serves of a model, where there is one of that name."""
        model = self._models.get(name)
        return model.entry if model is not None else None

    def _show(self, entry: ModelEntry) -> None:
        """Show in the metrics that an entry has changed."""
        show_model(self._models[entry.spec.name], self._metrics)

    def _usable(self, entry: ModelEntry) -> Served:
        if entry.is_loading:
            raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
        if entry.served is None:
            raise ModelUnavailableError
        if entry.state_now is ModelState.RESTARTING:
            raise ModelNotReadyError(RESTARTING, retry_after_s=entry.retry_after_s)
        return entry.served

    async def close(self, *, timeout_s: float) -> None:
        """Unload every model once its leases have ended, or when the time is up.

        A model that is still leased then is closed where that is safe. Else it stays until the
        process ends: freeing its memory during a call could crash the process.
        """
        until_s = time.monotonic() + timeout_s
        entries = self.all_entries
        names = [*(one.label for one in entries), *(one.name for one in self._replaced)]
        failures = await asyncio.gather(
            *(self._unload(entry, until_s) for entry in entries),
            *(close_unused(replaced, until_s) for replaced in self._replaced),
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
        await self._unload(self._models[name].entry, time.monotonic() + timeout_s)
        self._metrics.model_ready.remove(name)

    async def reload(self, name: str, *, timeout_s: float = REPLACED_S) -> None:
        """Load a model anew beside what serves, put it in its place, and close the old one.

        What the old one still runs after `timeout_s` ends with an error where that is safe.

        Raises:
            StartupError: it can't be loaded; the old one goes on.

        """
        entry = self._models[name].entry
        started = time.monotonic()
        served = await self._loads.call(entry.to_load)
        old, loans = entry.served, entry.loans
        entry.served, entry.loans = served, Loans()
        entry.reason = entry.detail = None
        self._loads.note_ready(entry, time.monotonic() - started)
        if old is None:
            return
        replaced = Replaced(name=entry.label, served=old, loans=loans)
        self._replaced.append(replaced)  # `close` has those whose time the shutdown cuts
        await close_unused(replaced, time.monotonic() + timeout_s)
        self._replaced.remove(replaced)
