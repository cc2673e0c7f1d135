"""The worker process: Celery takes messages, its child process runs the jobs."""

import asyncio
import logging
import mmap
import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning
from celery.platforms import SecurityWarning
from celery.worker import state
from prometheus_client import start_http_server

from app.console.ending import leave, write_last_lines
from app.core.metrics import Metrics
from app.core.parent import die_with_parent
from app.errors import DatabaseUnavailableError, SettingsError
from app.features.jobs.acknowledgement import raise_failed_acknowledgements
from app.features.jobs.celery import QUEUE, TASK, make_celery
from app.features.jobs.embedded import SOCKET_PATH_FILE
from app.features.jobs.settings import JobsSettings
from app.features.jobs.worker_child import ABORTING, STOPPING, WORKING, WorkerChild, WorkerMetrics
from app.models.catalog import read_catalog
from app.runtime.composition import check_redis_url, check_sql_url
from app.runtime.parts import open_database

log = logging.getLogger(__name__)

# After ABORTING: to put the job back, and for Celery to end. Then the process is ended.
ABORT_S = 10.0
EXIT_OK = 0
COUNTER_BYTES = 8


class Worker:
    """One `app worker`: Celery's parent process, which starts the child again when it dies.

    Args:
        settings: as read by the command.
        redis_url: the broker's.

    """

    def __init__(self, settings: JobsSettings, *, redis_url: str) -> None:
        self._settings = settings
        check_redis_url(settings)
        check_sql_url(settings)
        self._catalog = read_catalog(settings.models_file)
        self._redis_url = redis_url
        # Memory shared with the child; without locks, which a child that is killed would keep.
        self._phase = mmap.mmap(-1, 1)
        self._child_count = mmap.mmap(-1, COUNTER_BYTES)  # started so far
        self._timer: threading.Timer | None = None
        self._child: WorkerChild | None = None
        self._metrics: WorkerMetrics | None = None
        self._pid = os.getpid()

    def run(self) -> int:
        """Work until a signal comes; return the exit status."""
        # It warns of root because of pickled messages; ours have no content.
        warnings.filterwarnings("ignore", category=SecurityWarning)
        # It advises to cancel a task whose broker went away; jobs go on without a broker.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        raise_failed_acknowledgements()
        celery = make_celery(self._redis_url)
        celery.task(name=TASK, ignore_result=True)(self._work)
        signals.setup_logging.connect(_leave_logging_alone)
        signals.worker_process_init.connect(self._on_child)
        # Celery ends its child without the interpreter's own end, which would do it.
        signals.worker_process_shutdown.connect(self._on_child_end)
        worker: Any = self._celery_worker(celery)
        worker.start()
        return int(worker.exitcode or EXIT_OK)

    def _celery_worker(self, celery: Celery) -> Any:  # noqa: ANN401  # Celery is untyped
        worker: Any = celery.Worker(
            pool="prefork",
            concurrency=1,
            queues=[QUEUE],
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            optimization="fair",
            quiet=True,
        )
        # Celery's own handlers exit with a failure at Ctrl-C, and ignore a second SIGTERM.
        worker.install_platform_tweaks = self._take_signals
        return worker

    def _work(self) -> None:
        if self._child is None:
            self._child = WorkerChild(
                self._settings,
                self._catalog,
                metrics=self._metrics or WorkerMetrics(),
                redis_url=self._redis_url,
                phase=self._phase,
            )
        self._child.work()

    def _on_child(self, **_: object) -> None:
        """Run in the child, before its first message."""
        die_with_parent(self._pid)
        self._metrics = WorkerMetrics()
        before = int.from_bytes(self._child_count[:], "little")
        self._metrics.jobs.worker_restarts.inc(before)
        self._child_count[:] = (before + 1).to_bytes(COUNTER_BYTES, "little")
        if self._settings.worker_metrics_port is not None:
            self._serve_metrics(self._metrics.service, self._settings.worker_metrics_port)

    def _on_child_end(self, **_: object) -> None:
        if self._child is not None:
            self._child.close()
        write_last_lines()

    def _serve_metrics(self, metrics: Metrics, port: int) -> None:
        try:
            start_http_server(port, self._settings.host, registry=metrics.registry)
        except OSError as failure:
            log.warning("worker_metrics_not_served", extra={"port": port, "error": str(failure)})

    def _take_signals(self, _worker: object) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, *_: object) -> None:
        """Put the job back into the queue after its batch; at the second signal at once."""
        state.should_stop = EXIT_OK  # what Celery's own handler sets
        if self._phase[0] == WORKING:
            self._phase[0] = STOPPING
            self._later(self._settings.shutdown_budget_s, self._abort)
        elif self._phase[0] == STOPPING:
            self._abort()

    def _abort(self) -> None:
        self._phase[0] = ABORTING
        # The child ends with this process, and the job's lease expires.
        self._later(ABORT_S, lambda: leave(EXIT_OK))

    def _later(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, then)
        self._timer.daemon = True
        self._timer.start()


def require_support(settings: JobsSettings) -> None:
    """Check that this program may use the tables; each job checks a database that is away now.

    Raises:
        SchemaTooNewError: they are a newer program's.

    """

    async def require() -> None:
        database = open_database(settings, Metrics())
        try:
            await database.require_support()
        except DatabaseUnavailableError as failure:
            log.warning("worker_without_database", extra={"reason": failure.reason})
        finally:
            await database.close()

    asyncio.run(require())


def find_broker(settings: JobsSettings) -> str:
    """Return REDIS_URL, or the address of the Valkey that a service on this machine started.

    Raises:
        SettingsError: there is neither.

    """
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    file = settings.data_dir / SOCKET_PATH_FILE
    if file.is_file() and (socket := Path(file.read_text(encoding="utf-8"))).is_socket():
        return f"unix://{socket}"
    raise SettingsError("REDIS_URL is not set, and no service runs that has started a Valkey")


def _leave_logging_alone(**_: object) -> None:
    """Keep Celery from configuring logging: the command did."""
