"""Background work of a runtime: loads its models, watches its database and its event loop."""

import asyncio
import gc
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from app.db.session import Database
from app.errors import (
    DATABASE_ADVICE,
    DatabaseUnavailableError,
    SchemaError,
    SchemaTooNewError,
    StartupError,
)
from app.runtime.awaiting import awaited, loading
from app.runtime.runtime import Runtime

log = logging.getLogger(__name__)

LAG_CHECK_S = 0.25
LOADING_LOG_S = 10.0
DATABASE_CHECK_S = 5.0
# Between two collections of young objects: Python's 700 are those of a few requests, and collecting
# took 5 % of the processor time. What is in cycles waits a little longer, a few megabytes at most.
YOUNG_OBJECTS = 20_000
OnFatal = Callable[[StartupError], None]


async def load_models(runtime: Runtime, on_fatal: OnFatal) -> None:
    """Load all models; `on_fatal` is called when a required one fails."""
    try:
        await runtime.registry.load_all()
    except StartupError as failure:
        log.critical("startup_failed", extra={"code": failure.reason, "reason": str(failure)})
        on_fatal(failure)
        return
    # Models stay for good, so full garbage collections needn't go through them.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    runtime.loaded.set()
    log.info("models_loaded", extra={"models": len(runtime.registry.entries)})
    if not runtime.registry.serves:
        log.error("nothing_serves", extra={"reason": awaited(runtime.registry, runtime.steps)})


async def watch_loading(runtime: Runtime, *, every_s: float = LOADING_LOG_S) -> None:
    """Log which models still load, from time to time: a conversion may take minutes."""
    while not runtime.loaded.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await runtime.loaded.wait()
                return
        if waiting := loading(runtime.registry, runtime.steps):
            log.info("models_loading", extra={"waiting": waiting})


async def watch_database(
    runtime: Runtime, database: Database, on_fatal: OnFatal, *, every_s: float
) -> None:
    """Migrate SQLite, let features check what is stored, then keep checking that SQL works."""
    is_prepared = is_logged = False
    _report(runtime, None)
    while True:
        try:
            if not is_prepared:
                await _prepare(runtime, database)
            is_prepared = True
        except SchemaTooNewError as failure:
            log.critical("startup_failed", extra={"code": failure.reason, "reason": str(failure)})
            _report(runtime, "newer")
            on_fatal(failure)
            return
        except (DatabaseUnavailableError, SchemaError) as failure:
            if not is_logged:
                reason = str(failure)
                if isinstance(failure, DatabaseUnavailableError):
                    reason = failure.advice
                log.warning("database_not_ready", extra={"reason": reason})
            is_logged = True
        except StartupError as failure:
            on_fatal(failure)
            return
        _report(runtime, await database.check())
        runtime.stored.set()
        await asyncio.sleep(every_s)


def _report(runtime: Runtime, problem: str | None) -> None:
    """Report the database's problem, or that there is none, in /ready and the metrics."""
    runtime.database_problem = problem
    for reason in DATABASE_ADVICE:
        runtime.metrics.database_problem.labels(reason).set(reason == problem)


async def _prepare(runtime: Runtime, database: Database) -> None:
    if database.dialect == "sqlite":
        from app.db.schema import upgrade  # noqa: PLC0415  # it imports Alembic

        await asyncio.to_thread(upgrade, database)
    else:
        await database.require_support()
    for check in runtime.database_checks:
        await check()


async def watch_lag(runtime: Runtime) -> None:
    """Measure how late the event loop wakes up: a call that blocks it makes it late."""
    while True:
        due = time.monotonic() + LAG_CHECK_S
        await asyncio.sleep(LAG_CHECK_S)
        runtime.loop_lag_s = max(0.0, time.monotonic() - due)
        runtime.metrics.event_loop_lag_seconds.set(runtime.loop_lag_s)
        runtime.metrics.event_loop_tasks.set(len(asyncio.all_tasks()))
        runtime.metrics.count_dropped_lines()
        for entry in runtime.registry.all_entries:
            if entry.served:
                age_s = entry.served.model.longest_call_s()
                runtime.metrics.heartbeat_age_seconds.labels(entry.label).set(age_s)
