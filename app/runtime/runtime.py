"""What lives as long as the process, and whether it is well."""

import asyncio
from dataclasses import dataclass, field

from app.core.metrics import Metrics
from app.db.session import Database
from app.errors import DATABASE_ADVICE, NotReadyError, UnhealthyError
from app.features.access.keys import KeyService
from app.features.access.ledger import Ledger
from app.features.documents.service import DocumentService
from app.features.documents.vectors.base import VectorIndex
from app.features.jobs.opening import Broker
from app.features.jobs.service import JobService
from app.features.jobs.watch import JobWatch
from app.features.prediction_log.service import PredictionLog
from app.models.registry import ModelRegistry, ModelState
from app.models.schemas import ModelReadiness, Readiness
from app.models.steps import LoadSteps
from app.runtime.awaiting import awaited, progress
from app.services.access import Access
from app.services.prediction_log import EntryLog
from app.services.rows import RowReader
from app.settings import Settings


@dataclass(slots=True, kw_only=True)
class Runtime:
    """What lives as long as the process; made by `open_runtime`, handed out by `api/deps.py`."""

    settings: Settings
    metrics: Metrics
    registry: ModelRegistry
    steps: LoadSteps  # of models that load
    rows: RowReader
    database: Database
    access: Access
    entries: EntryLog
    keys: KeyService
    ledger: Ledger
    predictions: PredictionLog
    documents: DocumentService
    index: VectorIndex
    broker: Broker
    jobs: JobService
    job_watch: JobWatch
    loaded: asyncio.Event  # the models are
    database_problem: str | None = None
    is_draining: bool = False
    loop_lag_s: float = 0.0
    stored: asyncio.Event = field(default_factory=asyncio.Event)  # the database was asked once

    def check_health(self) -> None:
        """Say whether the process can do work.

        Raises:
            UnhealthyError: `checks` names what is dead or stuck.

        """
        max_call_s = self.settings.health_max_call_s
        dead = [
            said
            for entry in self.registry.entries
            if entry.served
            for said in entry.served.model.problems(max_call_s=max_call_s)
        ]
        if self.loop_lag_s * 1000 > self.settings.health_max_lag_ms:
            dead.append(f"event_loop: {self.loop_lag_s:.1f} s late")
        if dead:
            raise UnhealthyError("; ".join(dead), extensions={"checks": dead})

    def check_ready(self) -> None:
        """Say whether traffic should come here.

        Raises:
            NotReadyError: with every model's state, or because the process is shutting down.

        """
        if self.is_draining:
            raise NotReadyError("The service is shutting down.", retry_after_s=1)
        if not self.registry.is_ready:
            raise NotReadyError(
                awaited(self.registry, self.steps),
                retry_after_s=1,
                extensions=self.readiness().model_dump(
                    mode="json", include={"models"}, exclude_none=True
                ),
            )
        if not self.stored.is_set():
            why = "Waiting for the database."
            if self.database_problem == "newer":
                why = f"The database can't be used: {DATABASE_ADVICE[self.database_problem]}."
            raise NotReadyError(why, retry_after_s=1)

    def readiness(self) -> Readiness:
        """Return each model's state, and what works less well than it should."""
        failed = [e.spec.name for e in self.registry.entries if e.state is ModelState.FAILED]
        models = [
            ModelReadiness(
                name=entry.spec.name,
                state=entry.state,
                required=entry.is_required,
                reason=entry.reason,
                progress=progress(entry, self.steps),
            )
            for entry in self.registry.entries
        ]
        degraded = [f"model:{name}" for name in failed]
        if self.database_problem is not None:
            degraded.append(f"database:{self.database_problem}")
        if said := self.broker.problem():
            degraded.append(f"jobs:{said}")
        return Readiness(models=models, degraded=degraded)
