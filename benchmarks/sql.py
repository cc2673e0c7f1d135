"""Measures the prediction log on PostgreSQL at half a million rows: pages, export, retention.

    python -m benchmarks.sql [DATABASE_URL]

Without a URL it starts a PostgreSQL of its own, from the wheel that the tests use, with its
default of writing each commit through to the disk.
"""

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db.schema import downgrade, upgrade
from app.db.session import Database
from app.features.prediction_log.filters import Filters, Position
from app.features.prediction_log.reading import export
from app.features.prediction_log.repository import PredictionRepository
from app.features.prediction_log.retention import trim
from app.services.prediction_log import PredictionLogEntry

ROWS = 500_000
TIMES = 15
BATCH = 500
END = datetime(2026, 1, 1, tzinfo=UTC)
# One row a second. Four keys and three models, mixed; a label in 100,000; and what the planner
# can't know: a model and a label that only the oldest tenth has, the label under key 1 alone.
FILL = """
INSERT INTO predictions (time, id, request_id, key_id, task, model, version, status, latency_ms,
                         label, score, input_hash, input)
SELECT timestamptz '2026-01-01' - interval '1 second' * n, n, md5(n::text), n % 4 + 1,
       'text-classification',
       CASE WHEN n > :rows * 0.9 THEN 'retired' ELSE (ARRAY['a', 'b', 'c'])[n % 3 + 1] END,
       'sha256:0123456789abcdef', 200, random() * 50,
       CASE WHEN n % 100000 = 7 THEN 'RARE' WHEN n > :rows * 0.9 AND n % 4 = 0 THEN 'OLD'
            ELSE (ARRAY['POSITIVE', 'NEGATIVE'])[n % 2 + 1] END,
       random(), md5(n::text) || md5(n::text), repeat(md5(n::text), 4)
FROM generate_series(1, :rows) AS n
"""
HALF = END - timedelta(seconds=ROWS // 2)
PAGES = {
    "all": Filters(),
    "key": Filters(key_id=2),
    "model": Filters(model="a"),
    "model of the oldest tenth": Filters(model="retired"),
    "key and model of the oldest tenth": Filters(key_id=2, model="retired"),
    "rare label": Filters(label="RARE"),
    "key and rare label": Filters(key_id=4, label="RARE"),
    "label of the oldest tenth": Filters(label="OLD"),
    "key and label of the oldest tenth": Filters(key_id=1, label="OLD"),
    "key and label that never meet": Filters(key_id=2, label="OLD"),
    "model and label that never meet": Filters(model="a", label="OLD"),
    "label that isn't there": Filters(label="NONE"),
    "key, model, label": Filters(key_id=3, model="b", label="NEGATIVE"),
    "an hour": Filters(since=HALF, until=HALF + timedelta(hours=1)),
    "an hour and a key": Filters(key_id=2, since=HALF, until=HALF + timedelta(hours=1)),
    "version": Filters(version="v1"),
    "version that isn't there": Filters(version="v0"),
    "status that isn't there": Filters(status=503),
    "feedback, where there is none": Filters(feedback="given"),
    "without feedback": Filters(feedback="none"),
    "a request": Filters(request_id="c4ca4238a0b923820dcc509a6f75849b"),
}


async def main(url: str) -> dict[str, Any]:
    """Fill an empty database, measure, and leave it as it was."""
    seconds: list[float] = []
    database = Database(url, timeout_s=60, observe=lambda _, taken: seconds.append(taken))
    await asyncio.to_thread(upgrade, database)
    try:
        await database.run(lambda session: session.execute(text(FILL), {"rows": ROWS}) and None)
        found: dict[str, Any] = {"rows": ROWS}
        found["first pages, ms, before ANALYZE"] = await pages(database)
        await database.run(lambda session: session.execute(text("ANALYZE")) and None)
        found["first pages, ms"] = await pages(database)
        found["disk, mb"] = {name: await database.read(size(name)) for name in ("table", "indexes")}
        middle = Position(HALF, 0)
        found["pages from the middle, ms"] = await pages(database, middle)
        found["export"] = await exported(database)
        found["batches"] = await written(database)
        found["retention by rows"] = await measured(
            seconds, lambda: trim(database, max_rows=ROWS - 100_000)
        )
        found["retention by age"] = await measured(seconds, lambda: trim(database, before=HALF))
        return found
    finally:
        await asyncio.to_thread(downgrade, database, "base")
        await database.close()


def size(of: str) -> Callable[[Session], int]:
    """Return what asks how large the table, or its indexes, are on disk, in MB."""
    asked = text(f"SELECT pg_{of}_size('predictions') / 1000000")  # one of two words
    return lambda session: int(session.scalar(asked) or 0)


async def pages(database: Database, after: Position | None = None) -> dict[str, float]:
    """Return the slowest of some readings of each page of 100 rows, in ms."""
    slowest = {}
    for name, filters in PAGES.items():

        def page(session: Session, filters: Filters = filters) -> list[PredictionLogEntry]:
            return PredictionRepository(session).page(filters, after=after, limit=100)

        taken = [await timed(lambda page=page: database.read(page)) for _ in range(TIMES)]  # type: ignore[misc]  # a default binds it
        slowest[name] = round(max(taken) * 1000, 1)
    return slowest


async def timed(call: Callable[[], Awaitable[Any]]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


async def exported(database: Database) -> dict[str, float]:
    """Read everything as NDJSON; return what the peak of memory grew by, after the first tenth."""
    started, rows, size, early = time.perf_counter(), 0, 0, 0.0
    async for chunk in export(database):
        size += sum(len(json.dumps(astuple(row), default=str)) for row in chunk)
        rows += len(chunk)
        if not early and rows >= ROWS / 10:
            early = peak_mb()
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - started, 1),
        "text_mb": round(size / 1e6),
        "peak_mb_at_a_tenth": early,
        "peak_mb_at_the_end": peak_mb(),
    }


async def written(database: Database) -> dict[str, float]:
    """Write batches as the log's writer does; return times of one row."""
    batches = [[row(n) for n in range(BATCH)] for _ in range(20)]
    spent: list[float] = []

    def write(session: Session) -> None:
        started = time.thread_time()
        PredictionRepository(session).insert_many(batches[len(spent)])
        spent.append(time.thread_time() - started)

    seconds = [await timed(lambda: database.run(write)) for _ in batches]
    return {
        "median_us_per_row": round(sorted(seconds)[10] / BATCH * 1e6, 1),
        "slowest_batch_ms": round(max(seconds) * 1000, 1),
        "processor_us_per_row": round(sorted(spent)[10] / BATCH * 1e6, 1),
    }


def row(number: int) -> PredictionLogEntry:
    """Return one prediction of now."""
    return PredictionLogEntry(
        time=datetime.now(UTC),
        request_id=f"{number:032x}",
        key_id=1,
        task="text-classification",
        model="a",
        status=200,
        latency_ms=12.3,
        label="POSITIVE",
        score=0.9,
        input_hash="0" * 64,
    )


async def measured(
    seconds: list[float], call: Callable[[], AsyncIterator[int]]
) -> dict[str, float]:
    """Run a trim; return its deletes and the slowest of them.

    The first transaction may be the one that counts, which locks nothing.
    """
    seconds.clear()
    deleted = sum([count async for count in call()])
    return {
        "rows": deleted,
        "transactions": len(seconds),
        "first_ms": round(seconds[0] * 1000, 1),
        "slowest_other_ms": round(max(seconds[1:]) * 1000, 1),
        "seconds": round(sum(seconds), 1),
    }


def peak_mb() -> float:
    """Return this process's largest memory so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


if __name__ == "__main__":
    with ExitStack() as stack:
        if len(sys.argv) > 1:
            address = sys.argv[1]
        else:
            sys.path.append(str(Path(__file__).parent.parent / "tests"))
            from servers import postgres

            address = stack.enter_context(postgres("-c", "fsync=on")).url
        print(json.dumps(asyncio.run(main(address)), indent=2))
