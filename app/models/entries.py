"""What the registry knows of one version of a model: its state, and what it lends once loaded."""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from app.engines.items import ProcessCount, RunsApart
from app.errors import StartupError
from app.models.catalog import ModelSpec
from app.models.version_specs import VersionSpec


class ModelState(StrEnum):
    """The life of a model, in order."""

    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    UNLOADED = "unloaded"
    RESTARTING = "restarting"  # was ready; all of its processes have ended, and start again


class Servable(Protocol):
    """What the registry needs of a model that it lends."""

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is dead or stuck; empty when all is well."""
        ...

    def longest_call_s(self) -> float:
        """Return for how long the oldest running engine call has been running."""
        ...

    @property
    def can_close_early(self) -> bool:
        """Whether `close` may be called while it is leased: what runs gets an error then."""
        ...

    def close(self, *, timeout_s: float) -> None:
        """Stop, and free the memory; may block for that long."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A loaded model, and the version of its files."""

    model: Servable
    version: str
    engine: RunsApart | None = None  # where it runs in processes of its own


@dataclass(slots=True, kw_only=True)
class Loans:
    """How often what is served is on loan; what takes its place has loans of its own."""

    count: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True, kw_only=True)
class ModelEntry:
    """One version of a model. Use it on the event loop only.

    Args:
        spec: the model's entry in the catalogue.
        is_default: whether the model is its task's default one.
        is_required: whether `/ready` waits for it: a model's other versions are never required.
        version: as the catalogue has it; None: the model has no others.
        loads: what is loaded; None: `spec`.

    """

    spec: ModelSpec
    is_default: bool
    is_required: bool
    version: VersionSpec | None = None
    loads: ModelSpec | None = None
    state: ModelState = ModelState.WAITING
    ready_at_s: float = 0.0  # since 1970; 0 until it is
    served: Served | None = None
    reason: str | None = None  # the code of why it failed
    detail: str | None = None  # the same in words, as in the log
    began_s: float | None = None  # when loading began, as `time.monotonic` counts
    loans: Loans = field(default_factory=Loans)
    settled: asyncio.Event = field(default_factory=asyncio.Event)  # loaded once, or failed
    used_s: float = 0.0  # on demand: when it was last asked, as `time.monotonic` counts
    awaiting: int = 0  # on demand: requests that wait for it to be loaded
    size_bytes: int = 0  # on demand: what it takes of the budget, once that was looked up

    @property
    def to_load(self) -> ModelSpec:
        """The catalogue's entry with what the version says itself."""
        return self.loads or self.spec

    @property
    def label(self) -> str:
        """What metrics and the log call it: `sentiment`, or `sentiment@2` where it has others."""
        return self.to_load.name

    @property
    def version_name(self) -> str | None:
        """The version's name; else that of its files, once they are loaded."""
        if self.version is not None:
            return self.version.version
        return self.served.version if self.served else None

    @property
    def leases(self) -> int:
        """How many leases there are of what is served now."""
        return self.loans.count

    @property
    def processes(self) -> ProcessCount | None:
        """How many of its processes are up; None where it has none of its own."""
        engine = self.served.engine if self.served else None
        return engine.processes() if engine else None

    @property
    def retry_after_s(self) -> int:
        """In how many seconds one of its processes may be back."""
        engine = self.served.engine if self.served else None
        return engine.retry_after_s() if engine else 1

    @property
    def state_now(self) -> ModelState:
        """Its state, or that it is loaded and yet can't serve."""
        if self.state is ModelState.READY and (count := self.processes) and not count.ready:
            return ModelState.RESTARTING if self._refusal is None else ModelState.FAILED
        return self.state

    @property
    def reason_now(self) -> str | None:
        """The code of why it can't be loaded, or not again."""
        return self._refusal.reason if self._refusal else self.reason

    @property
    def detail_now(self) -> str | None:
        """The same in words."""
        return self._refusal.line if self._refusal else self.detail

    @property
    def _refusal(self) -> StartupError | None:
        engine = self.served.engine if self.served else None
        return engine.refusal() if engine else None

    def fail(self, failure: StartupError) -> None:
        """Note why it can't be loaded."""
        self.state, self.reason, self.detail = ModelState.FAILED, failure.reason, failure.line

    @property
    def is_blocking(self) -> bool:
        """Whether `/ready` has to wait for this model."""
        return self.is_required and self.state_now is not ModelState.READY

    @property
    def is_asleep(self) -> bool:
        """Whether it isn't loaded, and will be when it is asked."""
        return self.spec.is_lazy and self.state is ModelState.UNLOADED

    @property
    def is_loading(self) -> bool:
        """Whether it may still become ready."""
        return self.state in {ModelState.WAITING, ModelState.LOADING}
