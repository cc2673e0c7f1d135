"""Opens every long-lived object in order, and closes them in reverse."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager

from limits.aio.storage import Storage

from app.core.background import beside
from app.core.metrics import Metrics
from app.db.session import Database
from app.features.access.addresses import Network
from app.features.access.control import AccessControl, AccessPolicy
from app.features.access.keys import KeyService
from app.features.access.ledger import Ledger
from app.features.access.limits.limit import parse
from app.features.access.limits.limiter import Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.limits.redis import open_redis
from app.features.access.lockout import Lockout
from app.features.documents.service import DocumentService
from app.features.documents.vectors.opening import open_index
from app.features.jobs.opening import SECONDS_A_DAY, open_broker, open_keeper, open_webhooks
from app.features.jobs.service import JobService
from app.features.jobs.watch import JobWatch
from app.features.prediction_log.retention import RetentionPolicy
from app.features.prediction_log.service import LogPolicy, PredictionLog
from app.features.prediction_log.writer import WriterPolicy
from app.models.catalog import Catalog
from app.models.registry import ModelRegistry
from app.models.steps import LoadSteps
from app.runtime.parts import make_load, open_database
from app.runtime.runtime import Runtime
from app.runtime.watching import OnFatal, load_models, watch_database, watch_lag, watch_loading
from app.services.rows import RowReader
from app.settings import Settings

# Loading is mostly waiting for disk and network; more at once would only fight for memory.
LOAD_THREADS = 4
# At the end no request is left; an engine that still runs has lost its callers.
UNLOAD_S = 3.0


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
        steps = LoadSteps()
        registry = ModelRegistry(
            catalog,
            load=make_load(settings, catalog, tokenisers=tokenisers, metrics=metrics, steps=steps),
            executor=load_threads,
            metrics=metrics,
        )
        stack.push_async_callback(registry.close, timeout_s=UNLOAD_S)
        database = open_database(settings, metrics)
        stack.push_async_callback(database.close)
        limiter = await _open_limiter(stack, settings, metrics)
        ledger = Ledger(limiter, is_on=settings.limits != "off")
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
        keys = _open_keys(settings, database)
        predictions = await _open_predictions(stack, settings, database, metrics)
        access = AccessControl(
            keys=keys,
            lockout=Lockout(keys, Limiter(MemoryStorage(), metrics=metrics)),
            limiter=limiter,
            ledger=ledger,
            policy=AccessPolicy(
                needs_key=settings.needs_key,
                metrics_need_key=settings.metrics_need_key,
                is_limited=settings.limits != "off",
                default_limit=parse(settings.limit) if settings.limit else None,
                trusted_proxies=trusted_proxies,
            ),
        )
        runtime = Runtime(
            settings=settings,
            metrics=metrics,
            registry=registry,
            steps=steps,
            rows=RowReader(metrics, log_inputs=settings.log_inputs),
            database=database,
            access=access,
            entries=predictions,
            keys=keys,
            ledger=ledger,
            predictions=predictions,
            documents=DocumentService(database),
            index=open_index(stack, database, metrics=metrics),
            broker=broker,
            jobs=jobs,
            job_watch=JobWatch(jobs.get),
            loaded=loaded,
        )
        for background in (
            load_models(runtime, on_fatal),
            watch_loading(runtime),
            watch_lag(runtime),
            watch_database(runtime, on_fatal),
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
            age_s=days * SECONDS_A_DAY if days else None,
            rows=settings.prediction_retention_rows or None,
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
