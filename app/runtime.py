"""The composition root: opens every long-lived object in order and closes them in reverse."""

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from limits.aio.storage import Storage

from app.background import beside
from app.db.session import Database
from app.errors import (
    DatabaseUnavailableError,
    NotReadyError,
    SchemaError,
    SettingsError,
    StartupError,
    UnhealthyError,
)
from app.limits.limit import Limit, parse
from app.limits.limiter import Limiter
from app.limits.memory import MemoryStorage
from app.limits.redis import open_redis
from app.models.catalog import Catalog
from app.models.registry import ModelRegistry, ModelState
from app.models.schemas import ModelReadiness, Readiness
from app.observability.metrics import Metrics
from app.runtime_jobs import SECONDS_A_DAY, Broker, open_broker, open_keeper, open_webhooks
from app.runtime_parts import make_load, open_database
from app.runtime_search import open_index
from app.services.documents import DocumentService
from app.services.job_watch import JobWatch
from app.services.jobs import JobService
from app.services.keys import KeyService
from app.services.ledger import Ledger
from app.services.prediction_retention import RetentionPolicy
from app.services.prediction_writer import WriterPolicy
from app.services.predictions import LogPolicy, PredictionLog
from app.services.rows import RowReader
from app.settings import Settings
from app.vectors.base import VectorIndex

log = logging.getLogger(__name__)

# Loading is mostly waiting for disk and network; more at once would only fight for memory.
LOAD_THREADS = 4
LAG_CHECK_S = 0.25
# At the end no request is left; an engine that still runs has lost its callers.
UNLOAD_S = 3.0
DATABASE_CHECK_S = 5.0
Network = IPv4Network | IPv6Network
OnFatal = Callable[[StartupError], None]


@dataclass(slots=True, kw_only=True)
class Runtime:
    """What lives as long as the process; made by `open_runtime`, handed out by `api/deps.py`."""

    settings: Settings
    metrics: Metrics
    registry: ModelRegistry
    rows: RowReader
    database: Database
    keys: KeyService
    limiter: Limiter
    ledger: Ledger
    predictions: PredictionLog
    documents: DocumentService
    index: VectorIndex
    broker: Broker
    jobs: JobService
    job_watch: JobWatch
    loaded: asyncio.Event  # the models are
    failures: Limiter  # of keys, by address; of this process alone
    default_limit: Limit | None
    trusted_proxies: Sequence[Network]
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
            waiting = [e.spec.name for e in self.registry.entries if e.is_blocking]
            raise NotReadyError(
                f"Waiting for {', '.join(waiting)}.",
                retry_after_s=1,
                extensions=self.readiness().model_dump(
                    mode="json", include={"models"}, exclude_none=True
                ),
            )
        if not self.stored.is_set():
            raise NotReadyError("Waiting for the database.", retry_after_s=1)

    def readiness(self) -> Readiness:
        """Return each model's state, and what works less well than it should."""
        failed = [e.spec.name for e in self.registry.entries if e.state is ModelState.FAILED]
        models = [
            ModelReadiness(
                name=entry.spec.name,
                state=entry.state,
                required=entry.spec.required,
                reason=entry.reason,
            )
            for entry in self.registry.entries
        ]
        degraded = [f"model:{name}" for name in failed]
        if self.database_problem is not None:
            degraded.append(f"database:{self.database_problem}")
        if said := self.broker.problem():
            degraded.append(f"jobs:{said}")
        return Readiness(models=models, degraded=degraded)


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    catalog: Catalog,
    *,
    metrics: Metrics,
    on_fatal: OnFatal,
    trusted_proxies: Sequence[Network] = (),
) -> AsyncIterator[Runtime]:
    """Open everything, load the models behind the caller's back, and close it all at the end.

    Args:
        settings: as read by the entry point.
        catalog: the models to load.
        metrics: where everything counts.
        on_fatal: called on the loop when a required model can't be loaded.
        trusted_proxies: whose `X-Forwarded-For` is believed.

    """
    async with AsyncExitStack() as stack:
        load_threads = _open_threads(stack, "model-load", LOAD_THREADS)
        tokenisers = _open_threads(stack, "tokenise", settings.thread_count)
        registry = ModelRegistry(
            catalog,
            load=make_load(settings, catalog, tokenisers=tokenisers, metrics=metrics),
            executor=load_threads,
            metrics=metrics,
        )
        stack.push_async_callback(registry.close, timeout_s=UNLOAD_S)
        database = open_database(settings, metrics)
        stack.push_async_callback(database.close)
        limiter = await _open_limiter(stack, settings, metrics)
        ledger = Ledger(limiter)
        stack.push_async_callback(ledger.settle)
        loaded = asyncio.Event()
        broker = await open_broker(stack, settings, metrics=metrics, after=loaded.wait)
        jobs = JobService(
            database,
            bell=broker.bell,
            registry=registry,
            metrics=metrics,
            max_open=settings.jobs_per_key,
        )
        runtime = Runtime(
            settings=settings,
            metrics=metrics,
            registry=registry,
            rows=RowReader(metrics, log_inputs=settings.log_inputs),
            database=database,
            keys=_open_keys(settings, database),
            limiter=limiter,
            ledger=ledger,
            predictions=await _open_predictions(stack, settings, database, metrics),
            documents=DocumentService(database),
            index=open_index(stack, database, metrics=metrics),
            broker=broker,
            jobs=jobs,
            job_watch=JobWatch(jobs.get),
            loaded=loaded,
            failures=Limiter(MemoryStorage(), metrics=metrics),
            default_limit=parse(settings.limit) if settings.limit else None,
            trusted_proxies=trusted_proxies,
        )
        for background in (
            _load_models(runtime, on_fatal),
            _watch_lag(runtime),
            _watch_database(runtime, on_fatal),
        ):
            await stack.enter_async_context(beside(background))
        stored = runtime.stored.wait
        await open_keeper(
            stack, settings, database, bell=broker.bell, metrics=metrics, after=stored
        )
        await open_webhooks(stack, settings, database, metrics=metrics, after=stored)
        yield runtime


def _open_keys(settings: Settings, database: Database) -> KeyService:
    return KeyService(
        database,
        admin_key=settings.admin_key.get_secret_value() if settings.admin_key else None,
        cache_s=settings.auth_cache_s,
        stale_s=settings.auth_stale_s,
    )


async def _open_predictions(
    stack: AsyncExitStack, settings: Settings, database: Database, metrics: Metrics
) -> PredictionLog:
    """Log answers until the end, and write what waits then."""
    days = settings.prediction_retention_days
    policy = LogPolicy(
        is_on=settings.prediction_log == "on",
        input=settings.prediction_input,
        writer=WriterPolicy(bound=settings.prediction_log_bound),
        retention=RetentionPolicy(
            age_s=days * SECONDS_A_DAY if days else None, rows=settings.prediction_retention_rows
        ),
    )
    predictions = PredictionLog(database, policy=policy, metrics=metrics)
    await stack.enter_async_context(predictions.running())
    return predictions


async def _open_limiter(stack: AsyncExitStack, settings: Settings, metrics: Metrics) -> Limiter:
    """Count in Redis, which replicas share, or in this process."""
    storage: Storage = MemoryStorage()
    if settings.redis_url is not None:
        storage = await stack.enter_async_context(open_redis(settings.redis_url.get_secret_value()))
    return Limiter(storage, metrics=metrics, budget_s=settings.limiter_budget_ms / 1000)


def _open_threads(stack: AsyncExitStack, name: str, count: int) -> ThreadPoolExecutor:
    """Make a named pool that is shut down, but not waited for, at the end."""
    threads = ThreadPoolExecutor(count, thread_name_prefix=name)
    stack.callback(threads.shutdown, wait=False, cancel_futures=True)
    return threads


async def _load_models(runtime: Runtime, on_fatal: OnFatal) -> None:
    """Load all models; a required one that fails ends the process, by way of `on_fatal`."""
    try:
        await runtime.registry.load_all()
    except StartupError as failure:
        log.critical("startup_failed", extra={"code": failure.reason, "reason": str(failure)})
        on_fatal(failure)
        return
    # What is loaded stays: the collector need not walk it again at every full collection.
    gc.collect()
    gc.freeze()
    runtime.loaded.set()
    log.info("models_loaded", extra={"models": len(runtime.registry.entries)})


async def _watch_database(runtime: Runtime, on_fatal: OnFatal) -> None:
    """Migrate SQLite, see that somebody has a key, and from then on tell whether SQL answers."""
    try:
        if runtime.database.dialect == "sqlite":
            from app.db.schema import upgrade  # noqa: PLC0415  # it imports Alembic

            await asyncio.to_thread(upgrade, runtime.database)
        await _refuse_without_keys(runtime)
    except (DatabaseUnavailableError, SchemaError) as failure:
        log.warning("database_not_ready", extra={"reason": str(failure)})
    except StartupError as failure:
        on_fatal(failure)
        return
    while True:
        runtime.database_problem = await runtime.database.check()
        runtime.stored.set()
        await asyncio.sleep(DATABASE_CHECK_S)


async def _refuse_without_keys(runtime: Runtime) -> None:
    """Don't start a service that nobody can use, or that waits for somebody to make it open.

    Raises:
        SettingsError: it needs a key, and there is none.

    """
    settings = runtime.settings
    if not settings.needs_key or settings.is_loopback or settings.admin_key is not None:
        return
    if not await runtime.keys.list(before_id=None, limit=1):
        raise SettingsError(
            "HOST can be reached by others, and there is no key: set ADMIN_KEY, or make one with"
            " `app keys create`"
        )


async def _watch_lag(runtime: Runtime) -> None:
    """Measure how late the event loop wakes up; what blocks it shows here first."""
    while True:
        due = time.monotonic() + LAG_CHECK_S
        await asyncio.sleep(LAG_CHECK_S)
        runtime.loop_lag_s = max(0.0, time.monotonic() - due)
        runtime.metrics.event_loop_lag_seconds.set(runtime.loop_lag_s)
        runtime.metrics.event_loop_tasks.set(len(asyncio.all_tasks()))
        for entry in runtime.registry.entries:
            if entry.served:
                age_s = entry.served.model.longest_call_s()
                runtime.metrics.heartbeat_age_seconds.labels(entry.spec.name).set(age_s)
