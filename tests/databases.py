"""Databases for tests: opened with their tables or without, asked, and expected to fail."""

import asyncio
import atexit
import shutil
import tempfile
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from app.db.schema import upgrade
from app.db.session import Database
from app.errors import DatabaseUnavailableError


@asynccontextmanager
async def opened(url: str, **bounds: Any) -> AsyncIterator[Database]:
    """Open a database as it is, and close it after the block."""
    database = Database(url, **bounds)
    try:
        yield database
    finally:
        await database.close()


@cache
def _sqlite_with_tables() -> Path:
    """Migrate one file for all tests of this process."""
    folder = Path(tempfile.mkdtemp(prefix="ml-api-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    migrate(f"sqlite:///{folder / 'tables.db'}")
    return folder / "tables.db"


def migrate(url: str) -> None:
    """Make all tables in the way that `app db upgrade` does."""
    with ThreadPoolExecutor(1) as aside:  # the caller may run an event loop
        aside.submit(asyncio.run, _migrate(url)).result()


async def _migrate(url: str) -> None:
    async with opened(url) as database:
        upgrade(database)


def place_tables(file: Path) -> None:
    """Put a SQLite file with all tables where there is none: quicker than to migrate it."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_sqlite_with_tables(), file)


@asynccontextmanager
async def migrated(url: str, **bounds: Any) -> AsyncIterator[Database]:
    """Open a database with all its tables; the fixtures' databases have them already."""
    if url.startswith("sqlite:///"):
        place_tables(Path(url.removeprefix("sqlite:///")))
    async with opened(url, **bounds) as database:
        await asyncio.to_thread(upgrade, database)
        yield database


# Long enough for a busy machine to answer, short enough to wait for.
TIMEOUT_S = 1.0
FOREVER_SQLITE = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)
FOREVER = {"sqlite": FOREVER_SQLITE, "postgresql": "SELECT pg_sleep(60)"}


def says(statement: str, **values: Any) -> Callable[[Session], Any]:
    """Return work that runs a statement and gives its first value, if it has any."""

    def work(session: Session) -> Any:
        result = cast("CursorResult[Any]", session.execute(text(statement), values))
        return result.scalar() if result.returns_rows else None

    return work


ONE = says("SELECT 1")
MAKE = says("CREATE TABLE notes (n INTEGER PRIMARY KEY, said TEXT)")
NOTE = says("INSERT INTO notes VALUES (1, 'first')")
CHANGE = says("UPDATE notes SET said = 'second'")
COUNT = says("SELECT count(*) FROM notes")


@contextmanager
def unavailable(reason: str, *, within_s: float = TIMEOUT_S + 1) -> Iterator[None]:
    """Expect the typed error, for this reason, in this time, with no word about the server."""
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailableError) as caught:
        yield
    assert time.monotonic() - started < within_s
    assert caught.value.reason == reason
    assert caught.value.status == 503
    assert int(caught.value.headers["Retry-After"]) > 0
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__dict__)
    assert caught.value.__cause__ is None
    assert "127.0.0.1" not in told
    assert "secret" not in told
