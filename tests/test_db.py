"""The database when it works, when it is slow, and what it says of itself."""

import asyncio
import os
import threading
import time
import traceback
from pathlib import Path

import pytest
from databases import (
    CHANGE,
    COUNT,
    FOREVER,
    MAKE,
    NOTE,
    ONE,
    TIMEOUT_S,
    opened,
    says,
    unavailable,
)
from sqlalchemy.orm import Session

from app.db.failures import StatementError
from app.db.schema import upgrade
from app.db.session import Database
from app.errors import SettingsError

# What a URL means


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
async def test_every_name_of_postgresql_is_understood(postgres_url: str, scheme: str) -> None:
    async with opened(scheme + "://" + postgres_url.partition("://")[2]) as database:
        assert await database.run(ONE) == 1
        assert database.dialect == "postgresql"


async def test_a_folder_for_sqlite_is_made(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/new/deep/x.db") as database:
        assert await database.run(ONE) == 1
        assert database.dialect == "sqlite"


async def test_a_file_of_sqlite_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/x.db") as database:
        assert await database.run(ONE) == 1
        modes = {entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path)}
    assert modes == dict.fromkeys(("x.db", "x.db-shm", "x.db-wal"), 0o600)


async def test_a_relative_path_for_sqlite_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with opened("sqlite:///data/x.db") as database:
        monkeypatch.chdir("/")
        await database.run(MAKE)
    assert (tmp_path / "data" / "x.db").exists()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "secret",
        "mysql://me:secret@host/x",
        "postgresql+asyncpg://me:secret@host/x",
        "postgresql://me:secret@host:secret/x",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_another_url_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL") as caught:
        Database(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_repr_has_no_secret() -> None:
    async with opened("postgresql://me:secret@host/x?password=secret") as database:
        assert repr(database) == "Database(postgresql)"


# Transactions


async def test_work_is_committed_when_it_ends(database_url: str) -> None:
    async with opened(database_url) as database, opened(database_url) as other:
        await database.run(MAKE)
        await database.run(NOTE)
        assert await other.read(COUNT) == 1


async def test_work_that_raises_leaves_nothing(database_url: str) -> None:
    def fail(session: Session) -> None:
        NOTE(session)
        raise ZeroDivisionError

    async with opened(database_url) as database:
        await database.run(MAKE)
        with pytest.raises(ZeroDivisionError):
            await database.run(fail)
        assert await database.read(COUNT) == 0
        await database.run(NOTE)


async def test_reading_writes_nothing(database_url: str) -> None:
    async with opened(database_url, pool_size=1) as database:
        await database.run(MAKE)
        with unavailable("refused"):
            await database.read(NOTE)
        await database.run(NOTE)


async def test_work_runs_off_the_loop_in_threads_of_its_own(database_url: str) -> None:
    async with opened(database_url) as database:
        name = await database.run(lambda _: threading.current_thread().name)
        assert name.startswith("sql")


async def test_a_mistake_in_the_statement_is_no_outage_and_tells_no_values(
    database_url: str,
) -> None:
    async with opened(database_url) as database:
        with pytest.raises(StatementError) as caught:
            await database.run(says("SELEKT :x", x="a secret"))
        report = "".join(traceback.format_exception(caught.value))
        assert "42601" in report or "SQLITE_ERROR" in report
        assert "'a secret'" not in report.replace('x="a secret"', "")
        assert await database.run(ONE) == 1


async def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/x.db") as database:
        assert await database.run(says("PRAGMA journal_mode")) == "wal"
        assert await database.run(says("PRAGMA foreign_keys")) == 1
        assert await database.run(says("PRAGMA busy_timeout")) == 2000


async def test_readers_of_sqlite_wait_for_no_writer(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    async with opened(url) as database, opened(url) as other:
        await database.run(MAKE)
        with other.transaction() as session:
            NOTE(session)
            assert await database.read(COUNT) == 0
        assert await database.read(COUNT) == 1


async def test_postgresql_bounds_its_own_waits(postgres_url: str) -> None:
    async with opened(postgres_url, timeout_s=1.5) as database:
        for name in ("statement_timeout", "lock_timeout"):
            assert await database.run(says(f"SHOW {name}")) == "1500ms"
        show = says("SHOW statement_timeout")
        assert await database.run(show, timeout_s=7) == "7s"
        assert await database.run(show) == "1500ms"


# Full and slow


async def test_too_many_calls_are_refused_at_once(database_url: str) -> None:
    go_on = threading.Event()
    async with opened(database_url, pool_size=1, max_waiting=1) as database:
        calls = [asyncio.create_task(database.run(lambda _: go_on.wait(10))) for _ in range(2)]
        await asyncio.sleep(0)
        with unavailable("full", within_s=0.5):
            await database.run(ONE)
        go_on.set()
        assert await asyncio.gather(*calls) == [True, True]
        assert await database.run(ONE) == 1


async def test_a_slow_statement_ends_with_its_timeout_and_frees_its_thread(
    database_url: str,
) -> None:
    async with opened(database_url, pool_size=1, timeout_s=TIMEOUT_S) as database:
        forever = says(FOREVER[database.dialect])
        assert await database.run(ONE) == 1
        with unavailable("timeout"):
            await database.run(forever)
        with unavailable("timeout"):
            await database.run(forever, timeout_s=TIMEOUT_S / 2)
        assert await database.run(ONE) == 1


async def test_a_lock_is_not_waited_for_longer(database_url: str) -> None:
    async with (
        opened(database_url, timeout_s=TIMEOUT_S) as database,
        opened(database_url) as other,
    ):
        await database.run(MAKE)
        await database.run(NOTE)
        with other.transaction() as session:
            CHANGE(session)
            with unavailable("timeout"):
                await database.run(CHANGE)
        await database.run(CHANGE)


async def test_work_of_a_caller_that_left_is_not_begun(database_url: str) -> None:
    go_on, begun = threading.Event(), threading.Event()
    async with opened(database_url, pool_size=1) as database:
        call = asyncio.create_task(database.run(lambda _: go_on.wait(10)))
        left = asyncio.create_task(database.run(lambda _: begun.set()))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        go_on.set()
        await call
        assert await database.run(ONE) == 1
        assert not begun.is_set()


async def test_every_call_is_observed_with_its_outcome(database_url: str) -> None:
    seen: list[tuple[str, float]] = []
    async with opened(database_url, observe=lambda *call: seen.append(call)) as database:
        await database.run(ONE)
        with pytest.raises(StatementError):
            await database.run(says("SELEKT"))
        with unavailable("schema"):
            await database.run(COUNT)
    assert [outcome for outcome, _ in seen] == ["ok", "failed", "schema"]
    assert all(seconds > 0 for _, seconds in seen)


# What /ready says


async def test_a_schema_that_is_behind_is_named(empty_database_url: str) -> None:
    async with opened(empty_database_url) as database:
        assert await database.check() == "schema"
        await asyncio.to_thread(upgrade, database)
        assert await database.check() is None
        await database.run(says("UPDATE alembic_version SET version_num = '0000'"))
        assert await database.check() == "schema"
        await database.run(says("UPDATE alembic_version SET version_num = '9999'"))
        assert await database.check() == "newer"


async def test_a_closed_database_says_so(database_url: str) -> None:
    async with opened(database_url) as database:
        assert await database.run(ONE) == 1
        call = asyncio.create_task(database.run(says("SELECT 2")))
        await asyncio.sleep(0)
        await database.close()
        assert await call == 2
        assert await database.check() == "closed"
        with unavailable("closed"):
            await database.run(ONE)


async def test_closing_does_not_wait_for_a_statement_without_end(database_url: str) -> None:
    async with opened(database_url, timeout_s=TIMEOUT_S) as database:
        forever = says(FOREVER[database.dialect])
        call = asyncio.create_task(database.run(forever, timeout_s=60))
        await asyncio.sleep(0)
        started = time.monotonic()
        await database.close()
        assert time.monotonic() - started < TIMEOUT_S + 1
        with unavailable("timeout" if database.dialect == "sqlite" else "unreachable"):
            await call
