"""What jobs need to live as long as the process: a broker with a bell, and who tells of them."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpcore2

from app.db.session import Database
from app.features.jobs.bell import Bell, CeleryBell
from app.features.jobs.embedded import Embedded, find_valkey
from app.features.jobs.keeper import JobKeeper, KeeperPolicy
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.retention import job_retention
from app.features.jobs.service import JobService
from app.features.jobs.settings import JobsSettings
from app.features.jobs.watch import JobWatch
from app.features.jobs.webhooks.addresses import AllowedHosts
from app.features.jobs.webhooks.client import CheckedNetwork, WebhookClient, system_resolver
from app.features.jobs.webhooks.sender import WebhookSender
from app.runtime.runtime import Runtime

log = logging.getLogger(__name__)

SECONDS_A_DAY = 86_400

# Names that are looked up at once, twice as many as webhooks are sent at once: one whose servers
# are silent holds a thread for half a minute, long after its webhook has given up.
LOOKUPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where workers hear of jobs. Without a bell no jobs are taken."""

    bell: CeleryBell | None
    embedded: Embedded | None = None

    def problem(self) -> str | None:
        """Return why jobs run late, or not at all; None when all is well."""
        if self.embedded is not None and (said := self.embedded.problem()):
            return said
        return "broker" if self.bell is not None and not self.bell.is_heard else None


@dataclass(slots=True, kw_only=True)
class JobsPart:
    """What the routes of `/jobs` use."""

    jobs: JobService
    watch: JobWatch


@asynccontextmanager
async def open_jobs(
    runtime: Runtime,
    settings: JobsSettings,
    *,
    find: Callable[[], Path | None] = find_valkey,
) -> AsyncIterator[None]:
    """Take jobs, keep them going and tell of them during the block.

    Args:
        runtime: what the service has so far.
        settings: as the entry point read them.
        find: a Valkey server to start where there is no REDIS_URL; None: jobs wait.

    """
    async with AsyncExitStack() as stack:
        database, metrics = runtime.require_database(), JobMetrics(runtime.metrics.registry)
        loaded, stored = runtime.loaded.wait, runtime.stored.wait
        broker = await open_broker(stack, settings, find=find, metrics=metrics, after=loaded)
        jobs = JobService(
            database,
            bell=broker.bell,
            registry=runtime.registry,
            metrics=metrics,
            max_open=settings.jobs_per_key,
        )
        runtime.provide(JobsPart(jobs=jobs, watch=JobWatch(jobs.get)))
        runtime.degraded.append(lambda: f"jobs:{said}" if (said := broker.problem()) else None)
        await open_keeper(
            stack, settings, database, bell=broker.bell, metrics=metrics, after=stored
        )
        await open_webhooks(stack, settings, database, metrics=metrics, after=stored)
        yield


async def open_broker(
    stack: AsyncExitStack,
    settings: JobsSettings,
    *,
    find: Callable[[], Path | None],
    metrics: JobMetrics,
    after: Callable[[], Awaitable[object]],
) -> Broker:
    """Use REDIS_URL, or start a Valkey and a worker; closed with the stack.

    Args:
        stack: of the runtime.
        settings: as read by the entry point.
        find: a Valkey server to start.
        metrics: where failures count.
        after: awaited before a worker of our own starts.

    """
    if settings.redis_url is not None:
        return Broker(bell=_bell(stack, settings.redis_url.get_secret_value(), metrics))
    valkey = find()
    if valkey is None:
        log.warning("jobs_unavailable", extra={"reason": "no Valkey for this platform"})
        return Broker(bell=None)
    try:
        embedded = Embedded(settings, valkey=valkey, metrics=metrics, after=after)
    except OSError as failure:
        log.warning("jobs_unavailable", extra={"reason": str(failure)})
        return Broker(bell=None)
    await stack.enter_async_context(embedded.running())
    return Broker(bell=_bell(stack, embedded.url, metrics), embedded=embedded)


def _bell(stack: AsyncExitStack, redis_url: str, metrics: JobMetrics) -> CeleryBell:
    bell = CeleryBell(redis_url, metrics=metrics)
    stack.callback(bell.close)
    return bell


async def open_keeper(
    stack: AsyncExitStack,
    settings: JobsSettings,
    database: Database,
    *,
    bell: Bell | None,
    metrics: JobMetrics,
    after: Callable[[], Awaitable[object]],
) -> None:
    """Keep jobs going, and delete old ones; `after` is awaited before that begins."""
    policy = KeeperPolicy(retry=RetryPolicy(attempts=settings.job_attempts))
    keeper = JobKeeper(database, bell=bell, metrics=metrics, policy=policy)
    await stack.enter_async_context(keeper.running(after=after))
    if days := settings.job_retention_days:
        retention = job_retention(database, age_s=days * SECONDS_A_DAY)
        await stack.enter_async_context(retention.running(after=after))


async def open_webhooks(
    stack: AsyncExitStack,
    settings: JobsSettings,
    database: Database,
    *,
    metrics: JobMetrics,
    after: Callable[[], Awaitable[object]],
) -> None:
    """Deliver webhooks until the stack closes.

    Args:
        stack: of the runtime.
        settings: as read by the entry point.
        database: where jobs and their webhooks are.
        metrics: where attempts count.
        after: awaited before somebody looks for webhooks.

    """
    lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-lookup")
    stack.callback(lookups.shutdown, wait=False, cancel_futures=True)
    network = CheckedNetwork(
        system_resolver(lookups),
        allowed=AllowedHosts.parse(settings.webhook_allow_hosts),
        dial=httpcore2.AnyIOBackend(),
    )
    secret = settings.webhook_secret
    sender = WebhookSender(
        database,
        client=WebhookClient(network),
        secret=secret.get_secret_value() if secret else None,
        metrics=metrics,
    )
    await stack.enter_async_context(sender.running(after=after))
