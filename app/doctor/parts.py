"""Looks at what the service needs beside the machine: models, SQL, Redis, clocks."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from sqlalchemy import text

from app.core.finding import Finding, bad, doubtful, good
from app.core.redis_url import client_url
from app.db.engine import parse_url
from app.db.session import Database
from app.doctor.trial import try_model
from app.engines.loader import EngineTable
from app.errors import DATABASE_ADVICE, DatabaseUnavailableError, StartupError
from app.models.catalog import ModelSpec, read_catalog
from app.runtime.composition import Composition
from app.settings import Settings

# Sources on this machine; the others would be downloaded.
LOCAL = ("package:", "file:")
REDIS_TIMEOUT_S = 2.0
SQL_TIMEOUT_S = 3.0
# Signed webhooks and TLS certificates bear minutes, people who compare logs don't.
ALLOWED_SKEW_S = 2.0


def look(settings: Settings, chosen: Composition, *, load_timeout_s: float) -> Iterator[Finding]:
    """Look at all of it.

    Args:
        settings: as they were read.
        chosen: the tasks and features.
        load_timeout_s: so long a model may take to load; 0: none is loaded.

    """
    yield from _models(settings, chosen, load_timeout_s)
    yield from _sql(settings) if chosen.is_stored else (good("sql", "not used: nothing is stored"),)
    yield from _redis(settings)


def _models(settings: Settings, chosen: Composition, timeout_s: float) -> Iterator[Finding]:
    try:
        catalog = read_catalog(settings.models_file)
    except StartupError as failure:
        yield bad("models", str(failure), "Mend models.toml; docs/models.md has its fields.")
        return
    for spec in catalog.specs:
        if spec.task not in chosen.kinds:
            yield good(f"model {spec.name}", f"left out: the task {spec.task} is not installed")
    catalog = catalog.of_tasks(chosen.kinds)
    if not catalog.specs:
        yield bad("models", "none, so the service is never ready", "Add [[models]] to models.toml.")
    for spec in catalog.specs:
        for one in spec.loads:
            yield _model(one, timeout_s)


def _model(spec: ModelSpec, timeout_s: float) -> Finding:
    """Try a model that is here; what would have to be downloaded isn't."""
    place, source = f"model {spec.name}", spec.source or ""
    if EngineTable().has_files(spec.engine) and source and not source.startswith(LOCAL):
        return good(place, f"{source}, which is downloaded at the first start: not tried")
    if not timeout_s:
        return good(place, "not tried: --load-timeout 0")
    return try_model(spec, timeout_s=timeout_s)


def _sql(settings: Settings) -> list[Finding]:
    url = parse_url(settings.sql_url)
    if url.drivername == "sqlite" and not Path(str(url.database)).exists():
        # To connect would make the file, maybe as another user than the service's.
        return [good("sql", "SQLite, whose file is made at the start")]
    return asyncio.run(_ask_sql(settings))


async def _ask_sql(settings: Settings) -> list[Finding]:
    database = Database(settings.sql_url, timeout_s=SQL_TIMEOUT_S)
    kind = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[database.dialect]
    try:
        problem = await database.check(timeout_s=SQL_TIMEOUT_S)
        if problem == "schema" and database.dialect == "sqlite":
            return [good("sql", "SQLite, whose tables are made or brought up to date at the start")]
        if problem is not None:
            return [_sql_problem(kind, problem)]
        findings = [good("sql", f"{kind}, up to date")]
        if database.dialect == "postgresql":
            findings.append(await _sql_clock(database))
    except DatabaseUnavailableError as failure:
        return [_sql_problem(kind, failure.reason)]
    finally:
        await database.close()
    return findings


def _sql_problem(kind: str, reason: str) -> Finding:
    advice = DATABASE_ADVICE[reason]
    return bad("sql", f"{kind}: {reason}", f"{advice[0].upper()}{advice[1:]}.")


async def _sql_clock(database: Database) -> Finding:
    now = text("SELECT extract(epoch FROM clock_timestamp())")
    before = time.time()
    server_s = float(await database.read(lambda session: session.execute(now).scalar_one()))
    return _clock("PostgreSQL", server_s, before, time.time())


def _redis(settings: Settings) -> Iterator[Finding]:
    if settings.redis_url is None:
        yield good("redis", "not used: REDIS_URL is not set")
        return
    try:
        client = redis.Redis.from_url(
            client_url(settings.redis_url.get_secret_value()),
            socket_timeout=REDIS_TIMEOUT_S,
            socket_connect_timeout=REDIS_TIMEOUT_S,
        )
        with client:
            before = time.time()
            seconds, micros = client.time()  # type: ignore[misc]  # a client that doesn't await
            after = time.time()
    except (redis.RedisError, ValueError, OSError) as failure:
        # Messages of the client may have the URL in them, with its password.
        summary = f"no answer ({type(failure).__name__})"
        yield bad("redis", summary, "See that it runs, and that REDIS_URL names it.")
        return
    yield good("redis", "answers")
    yield _clock("Redis", seconds + micros / 1e6, before, after)


def _clock(server: str, server_s: float, before: float, after: float) -> Finding:
    """Compare clocks; the answer was made at some time between `before` and `after`."""
    skew_s = max(before - server_s, server_s - after, 0.0)
    summary = f"{skew_s:.1f} s apart from {server}'s"
    if skew_s > ALLOWED_SKEW_S:
        return doubtful("clock", summary, "Let both machines keep time by NTP.")
    return good("clock", summary)
