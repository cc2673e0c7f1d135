"""What lives as long as the process, and whether it is healthy and ready."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from app.core.metrics import Metrics
from app.core.request_kinds import RequestKind
from app.db.session import Database
from app.errors import DATABASE_ADVICE, NotReadyError, UnhealthyError
from app.models.entries import ModelState
from app.models.registry import ModelRegistry
from app.models.schemas import ModelReadiness, Readiness
from app.models.steps import LoadSteps
from app.models.swaps import Swaps
from app.runtime.awaiting import awaited, progress, reduced
from app.services.access import Access, OpenAccess
from app.services.own_requests import OwnRequests
from app.services.prediction_log import EntryLog, NoEntryLog
from app.services.results import ResultChecker
from app.services.shadows import Shadows

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

P = TypeVar("P")
OVERLOADED = "overloaded"


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPolicy:
    """The settings that routes and probes need.

    Args:
        request_timeout_ms: of a request.
        chat_timeout_ms: of a chat answer, its last token included.
        chat_max_answers: that one request may ask for.
        stream_buffer_tokens: that may wait for a client that reads slowly.
        log_inputs: whether texts are logged.
        health_max_call_s: that one engine call may take before `/health` answers 503.
        health_max_lag_ms: of the event loop above which it does.
        overloaded_is_ready: whether `/ready` answers 200 while requests are refused.

    """

    request_timeout_ms: int
    chat_timeout_ms: int
    chat_max_answers: int
    stream_buffer_tokens: int
    log_inputs: bool
    health_max_call_s: float
    health_max_lag_ms: float
    overloaded_is_ready: bool = True


@dataclass(slots=True, kw_only=True)
class Runtime:
    """What lives as long as the process; made by `open_runtime`, handed out by `http/deps.py`.

    Args:
        policy: what the settings say.
        metrics: where everything counts.
        registry: lends the models.
        swaps: changes them while they serve.
        steps: of models that load.
        shadows: take copies of texts.
        results: checks what engines return.
        database: SQL; None where nothing is stored.
        request_kinds: of the requests to routes, by their paths.
        access: identifies and limits callers.
        entries: takes entries of the prediction log.
        own_requests: answers the service's own; None in a process without routes.
        loaded: set once the models are.
        stored: set after the first check of the database, or where there is none.
        telemetry: continues traces that are stored; None: tracing is off.

    """

    policy: ServingPolicy
    metrics: Metrics
    registry: ModelRegistry
    swaps: Swaps
    steps: LoadSteps
    shadows: Shadows
    results: ResultChecker
    database: Database | None
    request_kinds: Mapping[str, RequestKind] = field(default_factory=dict)
    access: Access = field(default_factory=OpenAccess)
    entries: EntryLog = field(default_factory=NoEntryLog)
    own_requests: OwnRequests | None = None
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    stored: asyncio.Event = field(default_factory=asyncio.Event)
    telemetry: "Telemetry | None" = None
    database_problem: str | None = None
    is_draining: bool = False
    loop_lag_s: float = 0.0
    # Whether requests are refused because there are too many: the server knows.
    is_overloaded: Callable[[], bool] = _never
    # Where this process is one of several: the metrics of all. None: its own are all there are.
    all_metrics: Callable[[], Awaitable[bytes]] | None = None
    # Return what else is dead or stuck, beside models and the event loop.
    health_checks: list[Callable[[], list[str]]] = field(default_factory=list)
    # Features add to these: checks of the database, and what `/ready` calls degraded.
    database_checks: list[Callable[[], Awaitable[object]]] = field(default_factory=list)
    degraded: list[Callable[[], str | None]] = field(default_factory=list)
    _parts: dict[type, Any] = field(default_factory=dict)

    def provide(self, part: object) -> None:
        """Let routes and later features find an object of a feature by its type."""
        self._parts[type(part)] = part

    def part(self, kind: type[P]) -> P:
        """Return what a feature has provided."""
        part: P = self._parts[kind]
        return part

    def require_database(self) -> Database:
        """Return the database, in features that are stored."""
        assert self.database is not None  # noqa: S101  # `Feature.is_stored` says so
        return self.database

    def check_health(self) -> None:
        """Check that the service can do work.

        Raises:
            UnhealthyError: `checks` names what is dead or stuck.

        """
        problems = self.own_problems()
        for check in self.health_checks:
            problems += check()
        if problems:
            raise UnhealthyError("; ".join(problems), extensions={"checks": problems})

    def own_problems(self) -> list[str]:
        """Return what is dead or stuck in this process."""
        problems = [
            problem
            for entry in self.registry.all_entries
            if entry.served
            for problem in entry.served.model.problems(max_call_s=self.policy.health_max_call_s)
        ]
        if self.loop_lag_s * 1000 > self.policy.health_max_lag_ms:
            problems.append(f"event_loop: {self.loop_lag_s:.1f} s late")
        return problems

    def restarting(self) -> list[str]:
        """Return which models lack processes: that harms no other, and a restart wouldn't help."""
        return reduced(self.registry)

    def check_ready(self) -> None:
        """Check that traffic should come here.

        Raises:
            NotReadyError: with every model's state, or because the process is shutting down.

        """
        if self.is_draining:
            raise NotReadyError("The service is shutting down.", retry_after_s=1)
        if not self.policy.overloaded_is_ready and self.is_overloaded():
            raise NotReadyError("Requests are refused: there are too many.", retry_after_s=1)
        if not self.registry.is_ready:
            raise NotReadyError(
                awaited(self.registry, self.steps),
                retry_after_s=1,
                extensions=self.readiness().model_dump(
                    mode="json", include={"models"}, exclude_none=True
                ),
            )
        if not self.stored.is_set():
            detail = "Waiting for the database."
            if self.database_problem == "newer":
                detail = f"The database can't be used: {DATABASE_ADVICE[self.database_problem]}."
            raise NotReadyError(detail, retry_after_s=1)

    def is_ready(self) -> bool:
        """Say whether traffic should come here."""
        try:
            self.check_ready()
        except NotReadyError:
            return False
        return True

    def readiness(self) -> Readiness:
        """Return each model's state, and what works less well than it should."""
        failed = [e.label for e in self.registry.all_entries if e.state_now is ModelState.FAILED]
        models = [
            ModelReadiness(
                name=entry.spec.name,
                state=entry.state_now,
                required=entry.is_required,
                reason=entry.reason_now,
                progress=progress(entry, self.steps),
            )
            for entry in self.registry.entries
        ]
        degraded = [f"model:{name}" for name in failed]
        degraded += [f"processes:{line}" for line in reduced(self.registry)]
        if self.database_problem is not None:
            degraded.append(f"database:{self.database_problem}")
        if self.is_overloaded():
            degraded.append(OVERLOADED)
        degraded += [problem for check in self.degraded if (problem := check())]
        return Readiness(models=models, degraded=degraded)
