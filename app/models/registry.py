"""The ModelRegistry: load, warm, serve by lease, unload."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Generic, Protocol, TypeVar, cast

from app.core.metrics import Metrics
from app.errors import (
    EngineError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    StartupError,
)
from app.models.catalog import Catalog, ModelSpec

log = logging.getLogger(__name__)

# What a client is told to wait while a model loads; most load in seconds.
LOADING_RETRY_S = 2


class ModelState(StrEnum):
    """The life of a model, in order."""

    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"


class Servable(Protocol):
    """What the registry asks of a model that it lends; the rest is between task and borrower."""

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is dead or stuck; empty when all is well."""
        ...

    def longest_call_s(self) -> float:
        """Return for how long the oldest running engine call has been running."""
        ...

    def close(self, *, timeout_s: float) -> None:
        """Stop, and give the memory back; may block for that long. Called without leases."""
        ...


M = TypeVar("M", bound=Servable)


class TaskKey(str, Generic[M]):
    """The name of a task, as the catalogue has it, and the type of what its models are lent as."""

    __slots__ = ()

    def of(self, model: Servable) -> M:
        """Return a model of this task as what it is lent as; `runtime/parts.py` makes it so."""
        return cast("M", model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model that serves, and the edition of the files that it was made of."""

    model: Servable
    version: str


# Loads and warms one model; blocks. Raises StartupError.
LoadModel = Callable[[ModelSpec], Served]


@dataclass(slots=True, kw_only=True)
class ModelEntry:
    """What the registry knows of one model. Read it from the event loop only."""

    spec: ModelSpec
    is_default: bool
    is_required: bool
    state: ModelState = ModelState.WAITING
    ready_at_s: float = 0.0  # since 1970; 0 until it is
    served: Served | None = None
    reason: str | None = None  # the stable code of why it failed
    detail: str | None = None  # the same in words, as the log has it
    began_s: float | None = None  # when loading began, as `time.monotonic` counts
    leases: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_blocking(self) -> bool:
        """Whether `/ready` has to wait for this model."""
        return self.is_required and self.state is not ModelState.READY

    @property
    def is_loading(self) -> bool:
        """Whether it may still come to serve."""
        return self.state in {ModelState.WAITING, ModelState.LOADING}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Generic[M]):
    """A model on loan: it stays loaded until the lease ends."""

    spec: ModelSpec
    model: M
    version: str  # of the files


class ModelRegistry:
    """Holds the models of a catalogue and lends them out.

    One is made by the lifespan; nothing forbids a second, and tests make their own. Methods are
    called from the event loop; `load` runs in the executor's threads.
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
        return any(entry.state is ModelState.READY for entry in self._entries.values())

    @property
    def awaited(self) -> tuple[ModelEntry, ...]:
        """The models that readiness waits for: the required ones, or any if there are none."""
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
        entry.state = ModelState.LOADING
        entry.began_s = started = time.monotonic()
        try:
            entry.served = await self._call_load(entry.spec)
        except StartupError as failure:
            entry.state, entry.reason = ModelState.FAILED, failure.reason
            entry.detail = failure.line
            if entry.is_required:
                raise type(failure)(f"model {name!r} (required): {failure.line}") from failure
            log.warning("model_failed", extra={"model": name, "reason": failure.line})
            return
        seconds = time.monotonic() - started
        entry.state, entry.ready_at_s = ModelState.READY, time.time()
        self._metrics.model_ready.labels(name).set(1)
        self._metrics.model_load_seconds.labels(name).set(seconds)
        log.info("model_ready", extra={"model": name, "seconds": round(seconds, 2)})

    async def _call_load(self, spec: ModelSpec) -> Served:
        """Run `load` in a thread; what it did not foresee becomes an EngineError too."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._executor, self._load, spec)
        except StartupError:
            raise
        except Exception as failure:
            # The boundary to libraries that load foreign files: anything may come out of them.
            log.exception("model_load_crashed", extra={"model": spec.name})
            raise EngineError(f"{type(failure).__name__}: {failure}") from failure

    @contextmanager
    def lease(self, name: str | None, task: TaskKey[M]) -> Iterator[Lease[M]]:
        """Borrow a model; the default one of the task when none is named.

        What `load` makes of a task's models has the type that the key says; see `runtime/parts.py`.

        Raises:
            ModelNotFoundError: no model of that name does this task.
            ModelNotReadyError: it is still loading.
            ModelUnavailableError: it could not be loaded, or it is gone.

        """
        entry = self._find(name, task)
        served = self._usable(entry)
        entry.leases += 1
        entry.idle.clear()
        try:
            yield Lease(spec=entry.spec, model=task.of(served.model), version=served.version)
        finally:
            entry.leases -= 1
            if entry.leases == 0:
                entry.idle.set()

    def spec(self, name: str | None, task: str) -> ModelSpec | None:
        """Return the entry of the model that `lease` would lend, whether it serves or not."""
        found = self._catalog.get(name or self._catalog.default(task) or "")
        return found if found is not None and found.task == task else None

    def _find(self, name: str | None, task: str) -> ModelEntry:
        spec = self.spec(name, task)
        if spec is None:
            raise ModelNotFoundError
        return self._entries[spec.name]

    def _usable(self, entry: ModelEntry) -> Served:
        if entry.is_loading:
            raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
        if entry.served is None:
            raise ModelUnavailableError
        return entry.served

    async def close(self, *, timeout_s: float) -> None:
        """Unload every model once its leases have ended, or when the time is up.

        A model that is still on loan then is left to the end of the process: taking it away
        under a running call could crash it.
        """
        until_s = time.monotonic() + timeout_s
        ended = await asyncio.gather(
            *(self._unload(entry, until_s) for entry in self._entries.values()),
            return_exceptions=True,
        )
        for entry, failure in zip(self._entries.values(), ended, strict=True):
            if isinstance(failure, BaseException):
                log.error("unload_failed", exc_info=failure, extra={"model": entry.spec.name})

    async def _unload(self, entry: ModelEntry, until_s: float) -> None:
        name, served = entry.spec.name, entry.served
        entry.state, entry.served = ModelState.UNLOADED, None
        self._metrics.model_ready.labels(name).set(0)
        if served is None:
            return
        try:
            async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
                while entry.leases:
                    await entry.idle.wait()
        except TimeoutError:
            log.warning("model_still_leased", extra={"model": name, "leases": entry.leases})
            return
        left_s = max(0.0, until_s - time.monotonic())
        close = partial(served.model.close, timeout_s=left_s)
        # A thread of its own: those that load may be waiting for a hub that never answers.
        thread = ThreadPoolExecutor(1, thread_name_prefix="model-close")
        try:
            await asyncio.get_running_loop().run_in_executor(thread, close)
        finally:
            thread.shutdown(wait=False)
