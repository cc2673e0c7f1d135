"""What jobs open for the life of the process: broker, notifier, supervisor, webhooks."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import httpcore2

from app.core.metrics import Metrics
from app.db.session import Database
from app.features.jobs.embedded import Embedded, find_valkey
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.notifier import CeleryNotifier, JobNotifier
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.retention import job_retention
from app.features.jobs.service import JobService
from app.features.jobs.settings import JobsSettings
from app.features.jobs.supervisor import JobSupervisor, SupervisorPolicy
from app.features.jobs.watch import JobWatch
from app.features.jobs.webhooks.addresses import AllowedHosts
from app.features.jobs.webhooks.client import CheckedNetwork, WebhookClient, system_resolver
from app.features.jobs.webhooks.sender import WebhookSender
from app.runtime.runtime import Runtime

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

SECONDS_A_DAY = 86_400

# Names that are looked up at once, twice as many as webhooks are sent at once: one whose servers
# are silent holds a thread for half a minute, long after its webhook has given up.
LOOKUPS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """How workers are notified of jobs. Without a notifier no jobs are taken."""

    notifier: CeleryNotifier | None
    embedded: Embedded | None = None

    def problem(self) -> str | None:
        """Return why jobs run late, or not at all; None when all is well."""
        if self.embedded is not None and (problem := self.embedded.problem()):
            return problem
        return "broker" if self.notifier is not None and not self.notifier.is_reachable else None


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
    """Take jobs, supervise them and deliver their webhooks during the block.

    Args:
        runtime: has the database, the models and the metrics.
        settings: as the entry point read them.
        find: a Valkey server to start where there is no REDIS_URL; None: jobs wait.

    """
    async with AsyncExitStack() as stack:
        database, metrics = runtime.require_database(), JobMetrics(runtime.metrics.registry)
        loaded, stored = runtime.loaded.wait, runtime.stored.wait
        broker = await open_broker(stack, settings, find=find, metrics=metrics, after=loaded)
        jobs = JobService(
            database,
            notifier=broker.notifier,
            registry=runtime.registry,
            metrics=metrics,
            max_open=settings.jobs_per_key,
        )
        runtime.provide(JobsPart(jobs=jobs, watch=JobWatch(jobs.get)))
        runtime.degraded.append(
            lambda: f"jobs:{problem}" if (problem := broker.problem()) else None
        )
        await open_supervisor(
            stack, settings, database, notifier=broker.notifier, metrics=metrics, after=stored
        )
        await open_webhooks(
            stack,
            settings,
            database,
            metrics=metrics,
            after=stored,
            telemetry=runtime.telemetry,
        )
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
        after: awaited before the worker of this process starts.

    """
    if settings.redis_url is not None:
        return Broker(notifier=_notifier(stack, settings.redis_url.get_secret_value(), metrics))
    embedded = await open_embedded(stack, settings, find=find, metrics=metrics, after=after)
    if embedded is None:
        return Broker(notifier=None)
    return Broker(notifier=_notifier(stack, embedded.url, metrics), embedded=embedded)


async def open_embedded(
    stack: AsyncExitStack,
    settings: JobsSettings,
    *,
    find: Callable[[], Path | None],
    metrics: JobMetrics,
    after: Callable[[], Awaitable[object]],
) -> Embedded | None:
    """Start a Valkey and a worker, as `open_broker` does; None where that isn't possible."""
    valkey = find()
    if valkey is None:
        log.warning("jobs_unavailable", extra={"reason": "no Valkey for this platform"})
        return None
    try:
        embedded = Embedded(settings, valkey=valkey, metrics=metrics, after=after)
    except OSError as failure:
        log.warning("jobs_unavailable", extra={"reason": str(failure)})
        return None
    await stack.enter_async_context(embedded.running())
    return embedded


@asynccontextmanager
async def open_shared(
    settings: JobsSettings, *, metrics: Metrics, after: Callable[[], Awaitable[object]]
) -> AsyncIterator[Mapping[str, str]]:
    """Start one Valkey and one worker for all front ends, unless they have a REDIS_URL.

    The front ends get the Valkey as theirs, so they also share the counts of limits.
    """
    if settings.redis_url is not None or find_valkey() is None:
        yield {}  # each front end says so
        return
    async with AsyncExitStack() as stack:
        embedded = await open_embedded(
            stack, settings, find=find_valkey, metrics=JobMetrics(metrics.registry), after=after
        )
        yield {"REDIS_URL": embedded.url} if embedded else {}


def _notifier(stack: AsyncExitStack, redis_url: str, metrics: JobMetrics) -> CeleryNotifier:
    notifier = CeleryNotifier(redis_url, metrics=metrics)
    stack.callback(notifier.close)
    return notifier


async def open_supervisor(
    stack: AsyncExitStack,
    settings: JobsSettings,
    database: Database,
    *,
    notifier: JobNotifier | None,
    metrics: JobMetrics,
    after: Callable[[], Awaitable[object]],
) -> None:
    """Supervise jobs, and delete old ones; `after` is awaited before that begins."""
    policy = SupervisorPolicy(retry=RetryPolicy(attempts=settings.job_attempts))
    supervisor = JobSupervisor(database, notifier=notifier, metrics=metrics, policy=policy)
    await stack.enter_async_context(supervisor.running(after=after))
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
    telemetry: "Telemetry | None" = None,
) -> None:
    """Deliver webhooks until the stack closes.

    Args:
        stack: of the runtime.
        settings: as read by the entry point.
        database: where jobs and their webhooks are.
        metrics: where attempts count.
        after: awaited before the first delivery.
        telemetry: continues the traces of the requests that submitted jobs; None: it's off.

    """
    lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="webhook-lookup")
    stack.callback(lookups.shutdown, wait=False, cancel_futures=True)
    network = CheckedNetwork(
        system_resolver(lookups),
        allowed=AllowedHosts.parse(settings.webhook_allow_hosts),
        dial=httpcore2.AnyIOBackend(),
    )
    sender = WebhookSender(
        database,
        client=WebhookClient(network),
        secrets=settings.webhook_secrets,
        metrics=metrics,
        telemetry=telemetry,
    )
    await stack.enter_async_context(sender.running(after=after))
