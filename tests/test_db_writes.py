"""A database that takes no writes, or is damaged: /ready, the metric and the log say so."""

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from databases import TIMEOUT_S, migrated, opened, says
from httpx2 import AsyncClient
from serving import make_app, running
from sqlalchemy.engine import make_url

from app.core.throttle import LOG_EVERY_S
from app.db import availability
from app.db.availability import HOLD_S, Availability
from app.db.session import Database
from app.runtime import watching

DOCUMENT = {"documents": [{"id": "a", "text": "x" * 4000}]}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a filesystem of one megabyte."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a small filesystem, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Use up what is left of a disk, to the last byte."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("ab", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass
    return ballast


@asynccontextmanager
async def watched(tmp_path: Path, **settings: Any) -> AsyncIterator[AsyncClient]:
    """Serve from a database that is looked at all the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "DATABASE_CHECK_S", 0.05)
        app = make_app(tmp_path, prediction_log="off", **settings)
        async with running(app) as client, asyncio.timeout(60):
            yield client


async def until(client: AsyncClient, degraded: list[str]) -> None:
    while (await client.get("/ready")).json()["degraded"] != degraded:
        await asyncio.sleep(0.02)


async def problems(client: AsyncClient) -> set[str]:
    """Return the reasons that the metric names."""
    lines = (await client.get("/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith("mlapi_database_problem{")]
    assert found
    return {line.split('"')[1] for line in found if line.endswith(" 1.0")}


async def store(client: AsyncClient, **body: Any) -> tuple[int, str | None]:
    answer = await client.post("/documents", json=body or DOCUMENT)
    return answer.status_code, answer.json().get("code")


async def test_a_full_disk_is_named_and_its_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "HOLD_S", 2.0)
    with small_disk(tmp_path / "disk") as disk:
        url = f"sqlite:///{disk}/x.db"
        async with watched(tmp_path, database_url=url) as client:
            await until(client, [])
            ballast = fill(disk)
            assert await store(client) == (503, "database_unavailable")
            await until(client, ["database:disk_full"])
            assert await problems(client) == {"disk_full"}
            assert (await client.post("/predict", json={"text": "x"})).status_code == 200
            ballast.unlink()
            await until(client, [])
            assert await problems(client) == set()
            assert (await store(client))[0] == 201


async def test_a_lock_that_another_holds_is_named_and_its_end_too(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    url = f"sqlite:///{file}"
    async with watched(tmp_path, database_url=url, database_timeout_ms=200) as client:
        await until(client, [])
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await until(client, ["database:timeout"])
            assert await store(client) == (503, "database_unavailable")
            assert (await client.get("/documents")).status_code == 200, "readers wait for nobody"
            other.execute("ROLLBACK")
        await until(client, [])
        assert (await store(client))[0] == 201


async def test_postgresql_that_only_reads_is_named_and_its_end_too(
    tmp_path: Path, postgres_url: str
) -> None:
    """As a standby after a failover, or a server whose operator has stopped writes."""
    name = make_url(postgres_url).database
    cut_off = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE pid != pg_backend_pid() AND datname = current_database()"
    )

    async def only_reads(operator: Database, value: str) -> None:
        await operator.run(
            says(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}")
        )
        await operator.run(says(cut_off))

    async with (
        migrated(postgres_url) as operator,
        watched(tmp_path, database_url=postgres_url) as client,
    ):
        await until(client, [])
        await only_reads(operator, "on")
        await until(client, ["database:refused"])
        assert await store(client) == (503, "database_unavailable")
        await only_reads(operator, "off")
        await until(client, [])
        assert (await store(client))[0] == 201


async def test_the_check_does_not_make_the_file_grow(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    async with migrated(url) as database:
        assert await database.check() is None
        pages = await database.read(says("PRAGMA page_count"))
        for _ in range(50):
            assert await database.check() is None
        assert await database.read(says("PRAGMA page_count")) == pages
        assert await database.read(says("SELECT count(*) FROM write_check")) == 1


async def test_the_check_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "x.db"
    async with migrated(f"sqlite:///{file}", timeout_s=30) as database:
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(TIMEOUT_S + 1):
                assert await database.check(timeout_s=0.1) == "timeout"


async def test_a_check_at_the_same_time_from_many_replicas_is_well(database_url: str) -> None:
    async with migrated(database_url) as one, opened(database_url) as other:
        found = await asyncio.gather(*(d.check() for d in (one, other) for _ in range(10)))
    assert set(found) == {None}


def damage(file: Path, table: str) -> None:
    """Overwrite the page that a table begins with; the rest of the file stays whole."""
    with closing(sqlite3.connect(file)) as connection:
        found = "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master"
        page, size = connection.execute(f"{found} WHERE name = ?", (table,)).fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with file.open("r+b") as raw:
        raw.seek((page - 1) * size)
        raw.write(b"\xff" * size)


async def test_damage_shows_in_ready_metric_and_log_and_is_a_typed_503(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, file = tmp_path / "whole.db", tmp_path / "x.db"
    async with migrated(f"sqlite:///{whole}"):
        pass
    shutil.copyfile(whole, file)
    damage(file, "documents")
    async with watched(tmp_path, database_url=f"sqlite:///{file}") as client:
        await until(client, [])  # nobody has met it yet
        for _ in range(5):
            assert await store(client) == (503, "database_unavailable")
        await until(client, ["database:damaged"])
        assert await problems(client) == {"damaged"}
        assert (await client.get("/jobs")).status_code == 200, "what is whole goes on"
        await until(client, ["database:damaged"])  # a check that succeeds makes nothing whole
    lines = [r for r in caplog.records if r.message == "database_unavailable"]
    assert [(vars(r)["reason"], r.levelno) for r in lines] == [("damaged", logging.ERROR)]
    assert "SQLITE_CORRUPT" in vars(lines[0])["error"]


class Log:
    """The events of an Availability, at a time that the test says."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, logger="app.db.availability")
        self.now_s = 1000.0
        self.availability = Availability(lambda: self.now_s)
        self._caplog = caplog

    def new(self) -> list[str]:
        reasons = [str(vars(r).get("reason", r.message)) for r in self._caplog.records]
        self._caplog.clear()
        return reasons


def test_damage_is_said_again_at_a_bounded_rate(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    for _ in range(100):  # now a page that is whole, now one that isn't
        log.availability.failed("damaged", "SQLITE_CORRUPT", is_read=True)
        log.availability.answered(is_read=True)
    assert log.new() == ["damaged"]
    log.now_s += LOG_EVERY_S
    assert log.availability.problem() == "damaged"
    assert log.availability.problem() == "damaged"
    assert log.new() == ["damaged"], "also when nobody meets it"


def test_reads_that_go_on_do_not_end_an_outage_of_writes(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    for _ in range(100):
        log.availability.failed("refused", "READONLY", is_read=False)
        log.availability.answered(is_read=True)
    assert log.new() == ["refused"]
    log.now_s += LOG_EVERY_S
    log.availability.failed("refused", "READONLY", is_read=False)
    log.availability.answered(is_read=False)
    assert log.new() == ["refused", "database_available"]


def test_a_small_write_does_not_end_a_full_disk_at_once(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(caplog)
    log.availability.failed("disk_full", "SQLITE_FULL", is_read=False)
    log.availability.answered(is_read=False)
    assert log.availability.problem() == "disk_full"
    log.now_s += HOLD_S
    assert log.availability.problem() is None
    log.availability.answered(is_read=False)
    assert log.new() == ["disk_full", "database_available"]
