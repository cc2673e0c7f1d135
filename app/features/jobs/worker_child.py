"""The child process of a worker: what it opens, and how it runs one slice of a job."""

import asyncio
import logging
import mmap
from concurrent.futures import ThreadPoolExecutor

from app.console.ending import leave
from app.core.metrics import Metrics
from app.core.otel import open_telemetry
from app.errors import DatabaseUnavailableError
from app.features.jobs.embedders import JobEmbedders
from app.features.jobs.metrics import JobMetrics
from app.features.jobs.notifier import CeleryNotifier
from app.features.jobs.policy import RetryPolicy
from app.features.jobs.runner import JobRunner, RunnerPolicy
from app.features.jobs.settings import JobsSettings
from app.models.catalog import Catalog
from app.runtime.parts import make_load, open_database
from app.settings import otel_variables

log = logging.getLogger(__name__)

# There is no event for a flag that another process sets.
PHASE_POLL_S = 0.1
EXIT_BROKEN = 70  # EX_SOFTWARE of sysexits.h
WORKING, STOPPING, ABORTING = range(3)  # STOPPING: after the batch; ABORTING: at once


class WorkerMetrics:
    """The metrics of the child: those of its models and of its jobs."""

    def __init__(self) -> None:
        self.service = Metrics()
        self.jobs = JobMetrics(self.service.registry)


class WorkerChild:
    """Runs jobs, with models and a database of its own; made at the child's first message.

    Celery's parent opens none of it: threads and CUDA don't survive a fork.

    Args:
        settings: as read by the command.
        catalog: the models there are.
        metrics: the child's.
        redis_url: the broker's.
        phase: set by the parent.

    """

    def __init__(
        self,
        settings: JobsSettings,
        catalog: Catalog,
        *,
        metrics: WorkerMetrics,
        redis_url: str,
        phase: mmap.mmap,
    ) -> None:
        self._loop = asyncio.Runner()
        self._notifier = CeleryNotifier(redis_url, metrics=metrics.jobs)
        self._tokenisers = ThreadPoolExecutor(settings.thread_count, thread_name_prefix="tokenise")
        self._telemetry = open_telemetry(otel_variables(), metrics.service, process="worker")
        load = make_load(settings, catalog, tokenisers=self._tokenisers, metrics=metrics.service)
        self._embedders = JobEmbedders(catalog, load=load)
        self._runner = JobRunner(
            open_database(settings, metrics.service),
            find=self._embedders.find,
            policy=RunnerPolicy(
                lease_s=settings.job_lease_s, retry=RetryPolicy(attempts=settings.job_attempts)
            ),
            metrics=metrics.jobs,
            is_stopping=lambda: phase[0] >= STOPPING,
            telemetry=self._telemetry,
        )
        self._phase = phase
        self._metrics = metrics.service

    def work(self) -> None:
        """Run one slice of the job that is due, and notify workers of the next.

        If an engine is broken the process ends: its parent starts another, and the message is
        delivered again.
        """
        if self._phase[0] >= STOPPING:
            return
        try:
            had_work = self._loop.run(self._run_next())
        except asyncio.CancelledError:
            had_work = True
        except DatabaseUnavailableError as failure:
            log.warning("worker_without_database", extra={"reason": failure.reason})
            return
        finally:
            self._metrics.count_dropped_lines()
        if self._embedders.are_broken:
            log.critical("worker_broken")
            self.close()
            leave(EXIT_BROKEN)
        if had_work:
            self._notifier.notify_now()

    def close(self) -> None:
        """Export the spans that wait, within a bound."""
        if self._telemetry is not None:
            self._telemetry.close()

    async def _run_next(self) -> bool:
        """Run one slice; ABORTING cancels it."""
        work = asyncio.create_task(self._runner.run_next())
        while not work.done() and self._phase[0] < ABORTING:
            await asyncio.wait({work}, timeout=PHASE_POLL_S)
        work.cancel()
        return await work
