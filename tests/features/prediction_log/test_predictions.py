"""The prediction log: what it says, writes, loses and forgets."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from databases import migrated, opened
from servers import free_port
from servers import postgres as own_postgres
from sqlalchemy.orm import Session

from app.core.backoff import Backoff
from app.core.logs import request_id
from app.db.schema import upgrade
from app.db.session import Database
from app.engines.base import Task
from app.errors import DatabaseUnavailableError
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.redaction import MAX_INPUT_CHARS, InputKeeping, InputRedactor
from app.features.prediction_log.repository import PredictionRepository
from app.features.prediction_log.retention import RetentionPolicy, prediction_retention
from app.features.prediction_log.service import LogPolicy, PredictionLog
from app.features.prediction_log.writer import WriterPolicy
from app.services.prediction_log import PredictionLogEntry

START = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
ROW = PredictionLogEntry(
    time=START, id=1, request_id="1", task="chat", model="m", status=200, latency_ms=1.5
)
ONE = PredictionLogEntry(
    time=START, request_id="1", task=Task.CHAT, input="", key_id=7, model="m", latency_ms=12.5
)
QUICK = WriterPolicy(flush_s=0.01, backoff=Backoff(first_s=0.01, max_s=0.05))
TIMEOUT_S = 20
OUT_OF_RANGE = 2**70  # no integer of either database


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[Database]:
    async with migrated(f"sqlite:///{tmp_path}/one.db") as database:
        yield database


def make_log(
    database: Database, metrics: PredictionLogMetrics | None = None, **fields: Any
) -> PredictionLog:
    writer = replace(QUICK, **fields)
    return PredictionLog(
        database, policy=LogPolicy(writer=writer), metrics=metrics or PredictionLogMetrics()
    )


def entries(count: int) -> list[PredictionLogEntry]:
    """Return entries with the numbers from 1 on."""
    moments = [START + timedelta(seconds=n) for n in range(count)]
    return [replace(ONE, time=at, request_id=str(n)) for n, at in enumerate(moments, start=1)]


def rows(count: int) -> list[PredictionLogEntry]:
    moments = [START + timedelta(seconds=n) for n in range(count)]
    return [replace(ROW, time=at, id=n, request_id=str(n)) for n, at in enumerate(moments, start=1)]


def put(log: PredictionLog, entries: list[PredictionLogEntry]) -> None:
    for entry in entries:
        log.put(entry)


def stored_ids(session: Session) -> list[int]:
    return sorted(int(found.request_id) for found in PredictionRepository(session).page(limit=1000))


async def ids(database: Database) -> list[int]:
    return await database.read(stored_ids)


async def stored(database: Database, count: int) -> None:
    """Ask the database until it has so many rows."""
    async with asyncio.timeout(TIMEOUT_S):
        while len(await ids(database)) < count:
            pass


def value(metrics: PredictionLogMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"mlapi_prediction_log_{name}", labels)


def lost(metrics: PredictionLogMetrics, reason: str) -> float | None:
    return value(metrics, "dropped_total", reason=reason)


def away() -> str:
    return f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"


# Writing


async def test_rows_are_written_in_batches_and_all_of_them_at_the_end(database: Database) -> None:
    metrics = PredictionLogMetrics()
    log = make_log(database, metrics, batch=10)
    async with log.running():
        put(log, entries(25))
        assert log.waiting == 25
        assert value(metrics, "waiting") == 25
    assert await ids(database) == list(range(1, 26))
    assert value(metrics, "rows_total") == 25
    assert value(metrics, "seconds_count") == 3
    assert value(metrics, "waiting") == 0


async def test_one_row_is_written_without_waiting_for_others(sqlite: Database) -> None:
    log = make_log(sqlite)
    async with log.running():
        put(log, entries(1))
        await stored(sqlite, 1)
        put(log, entries(2)[1:])
        await stored(sqlite, 2)


async def test_a_whole_batch_does_not_wait_at_all(sqlite: Database) -> None:
    log = make_log(sqlite, batch=4, flush_s=TIMEOUT_S * 2)
    async with log.running():
        put(log, entries(4))
        await stored(sqlite, 4)


async def test_a_full_log_drops_the_newest_and_counts(sqlite: Database) -> None:
    metrics = PredictionLogMetrics()
    log = make_log(sqlite, metrics, bound=3)
    put(log, entries(5))
    assert lost(metrics, "full") == 2
    async with log.running():
        pass
    assert await ids(sqlite) == [1, 2, 3]


async def test_losses_are_logged_once_and_summed_up_at_the_end(
    sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    log = make_log(sqlite, bound=3)
    async with log.running():
        put(log, entries(50))
    records = [r for r in caplog.records if r.message == "predictions_dropped"]
    assert [vars(r)["count"] for r in records] == [1, 46]


async def test_the_defaults_write_a_flood(sqlite: Database) -> None:
    metrics = PredictionLogMetrics()
    log = PredictionLog(sqlite, policy=LogPolicy(), metrics=metrics)
    async with log.running():
        put(log, entries(900))
    assert value(metrics, "rows_total") == 900
    assert lost(metrics, "full") == lost(metrics, "shutdown") == 0


async def test_a_row_that_the_database_refuses_fails_alone(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = PredictionLogMetrics()
    log = make_log(database, metrics)
    poisoned = entries(9)
    for place in (3, 8):
        poisoned[place] = replace(poisoned[place], status=OUT_OF_RANGE, input="secret words")
    async with log.running():
        put(log, poisoned)
    assert await ids(database) == [1, 2, 3, 5, 6, 7, 8]
    assert (lost(metrics, "refused"), value(metrics, "rows_total")) == (2, 7)
    assert "secret" not in caplog.text


# A database that is away


class LosesAnswers(Database):
    """Commits, and then says that nothing was heard of it."""

    unheard = 2

    async def run(self, work: Callable[[Session], Any], *, timeout_s: float | None = None) -> Any:
        result = await super().run(work, timeout_s=timeout_s)
        self.unheard -= 1
        if self.unheard >= 0:
            raise DatabaseUnavailableError("timeout")
        return result


async def test_a_batch_whose_commit_was_not_heard_of_is_stored_and_counted_once(
    database_url: str,
) -> None:
    metrics = PredictionLogMetrics()
    database = LosesAnswers(database_url)
    await asyncio.to_thread(upgrade, database)
    log = make_log(database, metrics, batch=4)
    async with log.running():
        put(log, entries(6))
    assert await ids(database) == [1, 2, 3, 4, 5, 6]
    assert value(metrics, "rows_total") == 6
    await database.close()


async def test_rows_wait_for_a_database_that_comes_back() -> None:
    outcomes: asyncio.Queue[str] = asyncio.Queue()

    def observe(outcome: str, _seconds: float) -> None:
        outcomes.put_nowait(outcome)

    metrics = PredictionLogMetrics()
    with own_postgres() as postgres:
        assert postgres.server is not None
        async with migrated(postgres.url, observe=observe, timeout_s=1) as database:
            log = make_log(database, metrics, bound=5)
            postgres.server.stop()
            async with log.running():
                put(log, entries(8))
                async with asyncio.timeout(TIMEOUT_S):
                    assert [await outcomes.get(), await outcomes.get()] == ["unreachable"] * 2
                assert (log.waiting, lost(metrics, "full")) == (5, 3)
                await asyncio.to_thread(postgres.server.start)
                async with asyncio.timeout(TIMEOUT_S):
                    while await outcomes.get() != "ok":
                        pass
            assert await ids(database) == [1, 2, 3, 4, 5]
            assert value(metrics, "rows_total") == 5


async def test_a_frozen_database_loses_nothing_and_doubles_nothing() -> None:
    outcomes: asyncio.Queue[str] = asyncio.Queue()

    def observe(outcome: str, _seconds: float) -> None:
        outcomes.put_nowait(outcome)

    with own_postgres() as postgres:
        assert postgres.server is not None
        async with migrated(postgres.url, observe=observe, timeout_s=0.5) as database:
            log = make_log(database)
            async with log.running():
                with postgres.server.frozen():
                    put(log, entries(6))
                    async with asyncio.timeout(TIMEOUT_S):
                        assert await outcomes.get() in {"timeout", "unreachable"}
                async with asyncio.timeout(TIMEOUT_S):
                    while await outcomes.get() != "ok":
                        pass
            assert await ids(database) == [1, 2, 3, 4, 5, 6]


async def test_a_database_too_slow_for_a_batch_gets_smaller_ones(sqlite: Database) -> None:
    sizes: list[int] = []

    class Slow(Database):
        async def run(self, work: Any, *, timeout_s: float | None = None) -> Any:
            sizes.append(len(work.keywords["rows"]))
            if sizes[-1] > 3:
                raise DatabaseUnavailableError("timeout")
            return await super().run(work, timeout_s=timeout_s)

    database = Slow(sqlite._url.render_as_string())
    log = make_log(database, batch=8)
    async with log.running():
        put(log, entries(10))
    assert await ids(database) == list(range(1, 11))
    assert sizes[:5] == [8, 4, 2, 4, 2]
    await database.close()


async def test_the_end_waits_no_longer_than_its_budget_and_counts_what_is_lost() -> None:
    metrics = PredictionLogMetrics()
    async with opened(away()) as database:
        log = make_log(
            database, metrics, drain_s=0.2, backoff=Backoff(first_s=0.01, max_s=TIMEOUT_S)
        )
        async with log.running():
            put(log, entries(4))
            started = time.monotonic()
        assert time.monotonic() - started < 5
        assert (lost(metrics, "shutdown"), log.waiting) == (4, 0)
        put(log, entries(1))
        assert lost(metrics, "shutdown") == 5


async def test_the_end_interrupts_a_long_pause(sqlite: Database) -> None:
    class AwayOnce(Database):
        failed = asyncio.Event()

        async def run(self, work: Any, *, timeout_s: float | None = None) -> Any:
            if not self.failed.is_set():
                self.failed.set()
                raise DatabaseUnavailableError
            return await super().run(work, timeout_s=timeout_s)

    database = AwayOnce(sqlite._url.render_as_string())
    log = make_log(database, backoff=Backoff(first_s=TIMEOUT_S * 10, max_s=TIMEOUT_S * 10))
    async with asyncio.timeout(TIMEOUT_S), log.running():
        put(log, entries(1))
        await database.failed.wait()
    assert await ids(database) == [1]
    await database.close()


# Retention


async def test_old_rows_and_those_beyond_a_number_are_deleted(database: Database) -> None:
    metrics = PredictionLogMetrics()
    await database.run(lambda session: PredictionRepository(session).insert_many(rows(10)))

    def now() -> datetime:
        return START + timedelta(seconds=63)

    by_age = prediction_retention(
        database, policy=RetentionPolicy(age_s=60), metrics=metrics, now=now
    )
    await by_age.apply()
    assert await ids(database) == [4, 5, 6, 7, 8, 9, 10]
    by_rows = prediction_retention(
        database, policy=RetentionPolicy(rows=2), metrics=metrics, now=now
    )
    await by_rows.apply()
    assert await ids(database) == [9, 10]
    assert value(metrics, "deleted_total") == 8


async def test_retention_runs_beside_the_writer_again_and_again(sqlite: Database) -> None:
    policy = LogPolicy(writer=QUICK, retention=RetentionPolicy(rows=1, every_s=0.01))
    metrics = PredictionLogMetrics()
    log = PredictionLog(sqlite, policy=policy, metrics=metrics)
    async with log.running(), asyncio.timeout(TIMEOUT_S):
        for count in (3, 6):
            put(log, entries(count)[-3:])
            while value(metrics, "deleted_total") != count - 1:
                await ids(sqlite)
    assert await ids(sqlite) == [6]


async def test_an_age_beyond_the_calendar_ends_no_retention(
    sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    policy = RetentionPolicy(age_s=10**12)
    await prediction_retention(sqlite, policy=policy, metrics=PredictionLogMetrics()).apply()
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == [
        "retention_failed"
    ]


async def test_retention_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with opened(away()) as database:
        retention = prediction_retention(
            database, policy=RetentionPolicy(rows=1), metrics=PredictionLogMetrics()
        )
        await retention.apply()
        await retention.apply()
    records = [r for r in caplog.records if r.message == "retention_failed"]
    assert [r.levelno for r in records] == [logging.WARNING]


# What a row says


def test_a_row_says_who_what_and_how_long() -> None:
    row = InputRedactor("hash")(
        replace(
            ONE, task=Task.CLASSIFICATION, input="Grüße", version="v1", label="POSITIVE", score=0.9
        )
    )
    assert (row.time, row.request_id, row.key_id) == (START, "1", 7)
    assert (row.task, row.model, row.version, row.status) == ("text-classification", "m", "v1", 200)
    assert (row.label, row.score, row.error, row.latency_ms) == ("POSITIVE", 0.9, None, 12.5)
    assert row.input_hash == hashlib.sha256("Grüße".encode()).hexdigest()
    assert row.input is None


def test_an_entry_is_of_the_current_request_and_of_now() -> None:
    token = request_id.set("abc")
    entry = PredictionLogEntry(task=Task.CHAT, input="", key_id=None, model="m", latency_ms=1)
    request_id.reset(token)
    assert entry.request_id == "abc"
    assert abs(datetime.now(UTC) - entry.time) < timedelta(seconds=TIMEOUT_S)


def test_rows_have_ids_of_their_own() -> None:
    first, second = (PredictionLogEntry(task="chat", model="m", latency_ms=1) for _ in range(2))
    assert first.id != second.id
    assert InputRedactor("none")(first).id == first.id


@pytest.mark.parametrize(
    ("keeps", "has_hash", "kept"),
    [("none", False, None), ("hash", True, None), ("text", True, "x" * MAX_INPUT_CHARS)],
)
def test_an_input_is_kept_as_it_is_set(
    keeps: InputKeeping, *, has_hash: bool, kept: str | None
) -> None:
    row = InputRedactor(keeps)(replace(ONE, input="x" * 5000))
    assert ((row.input_hash is not None), row.input) == (has_hash, kept)


def test_tokens_and_times_of_a_chat_are_in_its_row() -> None:
    entry = replace(ONE, prompt_tokens=9, completion_tokens=2, ttft_ms=20, finish_reason="stop")
    row = InputRedactor("text")(entry)
    assert (row.prompt_tokens, row.completion_tokens, row.ttft_ms) == (9, 2, 20)
    assert row.finish_reason == "stop"
