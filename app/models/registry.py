"""The ModelRegistry: loads models, lends them by lease, unloads them."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

from app.core.metrics import Metrics
from app.errors import (
    EngineError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    StartupError,
)
from app.models.catalog import Catalog, ModelSpec
from app.models.entries import Loans, ModelEntry, ModelState, Servable, Served

log = logging.getLogger(__name__)

# Retry-After while a model loads; most load in seconds.
LOADING_RETRY_S = 2
# That a model which was replaced has for the requests that it still runs.
REPLACED_S = 60.0
RESTARTING = "The model's process has ended and is being started again."


M = TypeVar("M", bound=Servable)


class TaskKey(str, Generic[M]):
    """The name of a task, as in the catalogue, with the type that a lease of its models has."""

    __slots__ = ()

    def of(self, model: Servable) -> M:
        """Return a model of this task with its type, which `runtime/parts.py` sees to."""
        return cast("M", model)


# Loads and warms one model; blocks. Raises StartupError.
LoadModel = Callable[[ModelSpec], Served]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Generic[M]):
    """A model on loan: it stays loaded until the lease ends."""

    spec: ModelSpec
    model: M
    version: str  # of the files


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replaced:
    """What is lent no more, and is closed once what it has on loan is back."""

    name: str
    served: Served
    loans: Loans


class ModelRegistry:
    """Holds the models of a catalogue and lends them out.

    The lifespan makes one, and tests make their own. Methods are called
    from the event loop; `load` runs in the executor's threads.
    """

    def __init__(
        self, catalog: Catalog, *, load: LoadModel, executor: Executor, metrics: Metrics
    ) -> None:
        self._catalog = catalog
        self._load = load
        self._executor = executor
        self._metrics = metrics
        self._entries = {
            spec.name: ModelEntry(
                spec=spec,
                is_default=catalog.default(spec.task) == spec.name,
                is_required=catalog.is_required(spec),
            )
            for spec in catalog.specs
        }
        self._replaced: list[Replaced] = []  # that still serve the requests that they have
        for name in self._entries:
            metrics.model_ready.labels(name).set(0)

    @property
    def entries(self) -> tuple[ModelEntry, ...]:
        """Every model, in the order of the catalogue."""
        return tuple(self._entries.values())

    @property
    def is_ready(self) -> bool:
        """Whether every required model serves, and one at all."""
        return self.serves and not any(entry.is_blocking for entry in self._entries.values())

    @property
    def serves(self) -> bool:
        """Whether any model serves."""
        return any(entry.state_now is ModelState.READY for entry in self._entries.values())

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
                for entry in self._entries.values():
                    group.create_task(self._load_entry(entry))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _load_entry(self, entry: ModelEntry) -> None:
        """Bring one model from waiting to ready, or to failed."""
        name = entry.spec.name
        started = time.monotonic()
        try:
            await self._await_used(entry.spec)
            entry.state = ModelState.LOADING
            entry.began_s = started = time.monotonic()
            entry.served = await self._call_load(entry.spec)
        except StartupError as failure:
            entry.state, entry.reason = ModelState.FAILED, failure.reason
            entry.detail = failure.line
            if entry.is_required:
                raise type(failure)(f"model {name!r} (required): {failure.line}") from failure
            log.warning("model_failed", extra={"model": name, "reason": failure.line})
            return
        finally:
            entry.settled.set()
        self._note_ready(entry, time.monotonic() - started)

    async def _await_used(self, spec: ModelSpec) -> None:
        """Wait until the models that a class calls are loaded: it may call them while it loads.

        Raises:
            EngineError: one isn't served.

        """
        for name in spec.uses:
            used = self._entries.get(name)
            if used is not None:
                await used.settled.wait()
            if used is None or used.served is None:
                why = "its task is not installed" if used is None else "it could not be loaded"
                raise EngineError(f"it uses {name!r}, which is not served: {why}")

    def _note_ready(self, entry: ModelEntry, seconds: float) -> None:
        """Note that a model serves, and how long it took to load."""
        name = entry.spec.name
        entry.state, entry.ready_at_s = ModelState.READY, time.time()
        self._metrics.model_ready.labels(name).set(1)
        self._metrics.model_load_seconds.labels(name).set(seconds)
        log.info("model_ready", extra={"model": name, "seconds": round(seconds, 2)})

    async def _call_load(self, spec: ModelSpec) -> Served:
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

    @contextmanager
    def lease(self, name: str | None, task: TaskKey[M]) -> Iterator[Lease[M]]:
        """Lease a model; the default one of the task when none is named.

        Raises:
            ModelNotFoundError: no model of that name does this task.
            ModelNotReadyError: it is still loading, or its processes are being started again.
            ModelUnavailableError: it could not be loaded, or it is gone.

        """
        entry = self._find(name, task)
        served, loans = self._usable(entry), entry.loans
        loans.count += 1
        loans.idle.clear()
        try:
            yield Lease(spec=entry.spec, model=task.of(served.model), version=served.version)
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
        if name not in self._entries:
            raise ModelNotFoundError
        return self._entries[name].spec.task

    def _find(self, name: str | None, task: str) -> ModelEntry:
        spec = self.spec(name, task)
        if spec is None:
            raise ModelNotFoundError
        return self._entries[spec.name]

    def _usable(self, entry: ModelEntry) -> Served:
        if entry.is_loading:
            raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
        if entry.served is None or entry.state_now is ModelState.FAILED:
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
        names = [*self._entries, *(replaced.name for replaced in self._replaced)]
        failures = await asyncio.gather(
            *(self._unload(entry, until_s) for entry in self._entries.values()),
            *(_close(replaced, until_s) for replaced in self._replaced),
            return_exceptions=True,
        )
        for name, failure in zip(names, failures, strict=True):
            if isinstance(failure, BaseException):
                log.error("unload_failed", exc_info=failure, extra={"model": name})

    async def _unload(self, entry: ModelEntry, until_s: float) -> None:
        served, loans = entry.served, entry.loans
        entry.state, entry.served = ModelState.UNLOADED, None
        self._metrics.model_ready.labels(entry.spec.name).set(0)
        if served is not None:
            await _close(Replaced(name=entry.spec.name, served=served, loans=loans), until_s)

    async def forget(self, name: str, *, timeout_s: float) -> None:
        """Unload a model that other processes serve instead; its metrics are theirs then."""
        await self._unload(self._entries[name], time.monotonic() + timeout_s)
        self._metrics.model_ready.remove(name)

    async def reload(self, name: str, *, timeout_s: float = REPLACED_S) -> None:
        """Load a model anew beside what serves, put it in its place, and close the old one.

        What the old one still runs after `timeout_s` ends with an error where that is safe.

        Raises:
            StartupError: it can't be loaded; the old one goes on.

        """
        entry = self._entries[name]
        started = time.monotonic()
        served = await self._call_load(entry.spec)
        old, loans = entry.served, entry.loans
        entry.served, entry.loans = served, Loans()
        entry.reason = entry.detail = None
        self._note_ready(entry, time.monotonic() - started)
        if old is None:
            return
        replaced = Replaced(name=name, served=old, loans=loans)
        self._replaced.append(replaced)  # `close` has those whose time the shutdown cuts
        await _close(replaced, time.monotonic() + timeout_s)
        self._replaced.remove(replaced)


async def _close(replaced: Replaced, until_s: float) -> None:
    """Close a model that nobody can lease any more, once its leases have ended or the time is up.

    One that can't be closed while it is leased stays then.
    """
    loans, model = replaced.loans, replaced.served.model
    try:
        async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
            while loans.count:
                await loans.idle.wait()
    except TimeoutError:
        fields = {"model": replaced.name, "leases": loans.count}
        log.warning("model_still_leased", extra=fields)
        if not model.can_close_early:
            return
    left_s = max(0.0, until_s - time.monotonic())
    close = partial(model.close, timeout_s=left_s)
    # A thread of its own: those that load may still wait for a hub.
    thread = ThreadPoolExecutor(1, thread_name_prefix="model-close")
    try:
        await asyncio.get_running_loop().run_in_executor(thread, close)
    finally:
        thread.shutdown(wait=False)
