"""The database when it is down, frozen, killed, or not ours to use."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from databases import COUNT, MAKE, NOTE, ONE, TIMEOUT_S, migrated, opened, says, unavailable
from servers import Postgres, free_port
from servers import postgres as own_postgres
from sqlalchemy.orm import Session

from app.db.session import Database
from app.errors import DatabaseUnavailableError
from app.features.prediction_log.repository import PredictionRepository
from app.services.prediction_log import PredictionLogEntry

# PostgreSQL that is down


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with own_postgres() as started:
        yield started


async def test_a_frozen_server_is_a_typed_error_in_time_and_comes_back(server: Postgres) -> None:
    assert server.server is not None
    with server.database() as url:
        async with migrated(url, pool_size=2, timeout_s=TIMEOUT_S) as database:
            assert await database.check() is None
            with server.server.frozen():
                with unavailable("timeout"):
                    await database.run(ONE)
                assert await database.check(timeout_s=TIMEOUT_S / 2) == "timeout"
                # The pool's connections are used up: these wait for new ones.
                outcomes = await asyncio.gather(
                    *(database.run(ONE) for _ in range(6)), return_exceptions=True
                )
                assert {type(outcome) for outcome in outcomes} == {DatabaseUnavailableError}
            assert await answers(database)


async def test_a_call_under_way_when_the_server_freezes_is_freed(server: Postgres) -> None:
    assert server.server is not None
    with server.database() as url:
        async with opened(url, pool_size=1, timeout_s=TIMEOUT_S) as database:
            await database.run(ONE)
            begun = threading.Event()

            def work(session: Session) -> None:
                ONE(session)
                begun.set()
                says("SELECT pg_sleep(0.5)")(session)

            call = asyncio.create_task(database.run(work))
            await asyncio.to_thread(begun.wait, 10)
            with server.server.frozen(), unavailable("timeout"):
                await call
            assert await answers(database)


async def test_a_server_that_was_killed_and_started_again_is_used_again_at_once(
    server: Postgres,
) -> None:
    assert server.server is not None
    with server.database() as url:
        async with migrated(url, pool_size=2, timeout_s=5) as database:
            await asyncio.gather(*(database.run(ONE) for _ in range(4)))
            server.server.kill()
            with unavailable("unreachable", within_s=1):
                await database.run(ONE)
            assert await database.check() == "unreachable"
            server.server.start()
            assert await database.run(ONE) == 1
            assert await database.check() is None


async def test_what_is_written_until_it_succeeds_is_stored_once(server: Postgres) -> None:
    assert server.server is not None
    is_over = False
    written: list[int] = []

    async def write(database: Database) -> None:
        while not is_over:
            batch = [
                PredictionLogEntry(
                    time=datetime.now(UTC),
                    request_id="r",
                    task="t",
                    model="m",
                    status=200,
                    latency_ms=1,
                )
                for _ in range(20)
            ]
            while not await stored(database, batch):
                await asyncio.sleep(0.01)
            written.extend(prediction.id for prediction in batch)

    with server.database() as url:
        async with migrated(url, pool_size=4, timeout_s=0.3) as database:
            writers = [asyncio.create_task(write(database)) for _ in range(8)]
            for _ in range(3):
                await asyncio.sleep(0.2)  # in the middle of whatever they do
                with server.server.frozen():
                    await asyncio.sleep(0.4)
                await asyncio.to_thread(server.server.kill)
                await asyncio.to_thread(server.server.start)
            is_over = True
            await asyncio.gather(*writers)
            ids = says("SELECT array_agg(id ORDER BY id) FROM predictions")
            assert await database.read(ids, timeout_s=10) == sorted(written)


async def stored(database: Database, batch: list[PredictionLogEntry]) -> bool:
    try:
        await database.run(lambda session: PredictionRepository(session).insert_many(batch))
    except DatabaseUnavailableError:
        return False
    return True


async def test_connections_that_the_server_closed_cost_no_call(server: Postgres) -> None:
    with server.database() as url:
        async with opened(url, pool_size=3) as database, opened(url) as other:
            await asyncio.gather(*(database.run(says("SELECT pg_sleep(0.05)")) for _ in range(3)))
            end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid != pg_backend_pid() AND datname = current_database()"  # noqa: E501 -- one statement
            assert await other.run(says(end)) == 3
            assert await asyncio.gather(*(database.run(ONE) for _ in range(5))) == [1] * 5


async def test_nobody_listening_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    url = f"postgresql://me:secret@127.0.0.1:{free_port()}/x"
    async with opened(url) as database:
        for _ in range(3):
            with unavailable("unreachable", within_s=1):
                await database.run(ONE)
    assert [record.getMessage() for record in caplog.records] == ["database_unavailable"]
    assert "secret" not in str(caplog.records[0].__dict__)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [("test:secret", "unreachable"), ("secret:test", "unreachable"), ("/secret", "unreachable")],
)
async def test_wrong_credentials_and_names_are_not_told(
    server: Postgres, wrong: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    scheme, _, rest = server.url.partition("://")
    credentials, _, address = rest.rpartition("@")
    if wrong.startswith("/"):
        url = f"{scheme}://{credentials}@{address.partition('/')[0]}{wrong}"
    else:
        url = f"{scheme}://{wrong}@{address}"
    async with opened(url) as database:
        with unavailable(reason, within_s=2):
            await database.run(ONE)
    assert "secret" not in str([record.__dict__ for record in caplog.records])


async def test_an_outage_and_its_end_are_logged_once_each(
    server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    assert server.server is not None
    caplog.set_level(logging.INFO, logger="app.db.availability")
    with server.database() as url:
        async with opened(url) as database:
            await database.run(ONE)
            server.server.kill()
            for _ in range(2):
                with unavailable("unreachable"):
                    await database.run(ONE)
            server.server.start()
            for _ in range(2):
                await database.run(ONE)
    assert [record.getMessage() for record in caplog.records] == [
        "database_unavailable",
        "database_available",
    ]


async def test_a_standby_refuses_to_be_written(server: Postgres) -> None:
    with server.database() as url:
        async with opened(url) as database:
            await database.run(MAKE)
            name = url.rpartition("/")[2]
            await database.run(
                says(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
            )
        async with opened(url) as database:
            with unavailable("refused"):
                await database.run(NOTE)
            assert await database.read(COUNT) == 0


# SQLite that can't be used


async def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with opened(f"sqlite:///{tmp_path}/file/x.db") as database:
        with unavailable("refused"):
            await database.run(ONE)
        assert await database.check() == "refused"


async def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    file.write_text("nothing that SQLite would write" * 100, encoding="utf-8")
    async with opened(f"sqlite:///{file}") as database:
        with unavailable("refused"):
            await database.run(ONE)
    assert file.read_text(encoding="utf-8").startswith("nothing")


async def test_a_full_disk_loses_the_transaction_and_nothing_else(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/x.db", pool_size=1) as database:
        await database.run(MAKE)
        await database.run(NOTE)
        await database.run(says("PRAGMA max_page_count = 3"))
        with unavailable("disk_full"):
            await database.run(says("INSERT INTO notes VALUES (2, hex(zeroblob(100000)))"))
        assert await database.read(COUNT) == 1
        await database.run(says("PRAGMA max_page_count = 1000000"))
        await database.run(says("INSERT INTO notes VALUES (2, hex(zeroblob(100000)))"))


async def answers(database: Database) -> bool:
    """Say whether the database answers, soon at the latest: threads that connect may be held."""
    for _ in range(5):
        try:
            await database.run(ONE)
        except DatabaseUnavailableError:
            continue
        return True
    return False
