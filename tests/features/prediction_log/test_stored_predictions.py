"""The prediction log, on SQLite and on PostgreSQL."""

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from databases import migrated

from app.db.session import Database
from app.features.prediction_log.filters import Filters, Position
from app.features.prediction_log.reading import export
from app.features.prediction_log.repository import PredictionRepository
from app.features.prediction_log.retention import trim
from app.services.prediction_log import PredictionLogEntry

START = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
ONE = PredictionLogEntry(
    time=START,
    id=1,
    request_id="r",
    key_id=7,
    task="text-classification",
    model="sentiment",
    version="v1",
    status=200,
    error=None,
    latency_ms=12.5,
    label="POSITIVE",
    score=0.1 + 0.2,
    input_hash="ab" * 32,
    input='a "text" with \\ and \n and é and 🙂',
    prompt_tokens=5,
    completion_tokens=6,
    ttft_ms=7.25,
    finish_reason="stop",
)
SHADOW = replace(ONE, id=3, shadow=True)
BARE = PredictionLogEntry(
    time=START, id=2, request_id="r", task="chat", model="m", status=503, latency_ms=0
)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


def numbered(count: int, **fields: object) -> list[PredictionLogEntry]:
    """Make predictions one second apart, with ids that count up from 1."""
    return [
        replace(ONE, time=START + timedelta(seconds=n), id=n + 1, **fields)  # type: ignore[arg-type]
        for n in range(count)
    ]


async def insert(database: Database, predictions: Sequence[PredictionLogEntry]) -> None:
    await database.run(lambda session: PredictionRepository(session).insert_many(predictions))


async def page(
    database: Database, after: Position | None = None, limit: int = 100, **filters: object
) -> list[PredictionLogEntry]:
    asked = Filters(**filters)  # type: ignore[arg-type]  # the test knows the fields
    return await database.read(
        lambda session: PredictionRepository(session).page(asked, after=after, limit=limit)
    )


async def ids(database: Database, **asked: object) -> list[int]:
    return [prediction.id for prediction in await page(database, **asked)]  # type: ignore[arg-type]


async def test_a_prediction_comes_back_as_it_was_stored(database: Database) -> None:
    await insert(database, [ONE, BARE, SHADOW])
    assert await page(database) == [BARE, ONE]
    assert await page(database, shadow=True) == [SHADOW]
    assert await page(database, shadow=True, label="POSITIVE", version="v1") == [SHADOW]
    assert await page(database, shadow=None) == [SHADOW, BARE, ONE]


async def test_nothing_is_stored_of_nothing(database: Database) -> None:
    await insert(database, [])
    assert await page(database) == []


async def test_a_batch_that_is_written_twice_is_stored_once(database: Database) -> None:
    await insert(database, numbered(3))
    await insert(database, numbered(5))
    assert await ids(database) == [5, 4, 3, 2, 1]


async def test_what_a_database_cannot_store_does_not_fail_its_batch(database: Database) -> None:
    odd = replace(BARE, label="a\0b\ud800", score=math.nan, ttft_ms=math.inf)
    await insert(database, [odd, ONE])
    stored = (await page(database))[0]
    assert (stored.label, stored.score, stored.ttft_ms) == ("a\ufffdb?", None, None)


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE predictions; --", "%(x)s :y {z}", "\\N", "\\u0041"]
)
async def test_text_is_never_read_as_sql(database: Database, text: str) -> None:
    await insert(database, [replace(ONE, input=text, label=text, request_id=text)])
    assert [found.input for found in await page(database, label=text, request_id=text)] == [text]


async def test_pages_follow_each_other_newest_first_also_within_one_moment(
    database: Database,
) -> None:
    await insert(database, [replace(ONE, id=n) for n in (3, 1, 2)] + numbered(6)[3:])
    first = await page(database, limit=4)
    assert [p.id for p in first] == [6, 5, 4, 3]
    assert await ids(database, after=Position.of(first[-1])) == [2, 1]


async def test_a_position_survives_being_written(database: Database) -> None:
    await insert(database, numbered(3))
    middle = (await page(database))[1]
    assert Position.parse(str(Position.of(middle))) == Position.of(middle)
    assert await ids(database, after=Position.parse(str(Position.of(middle)))) == [1]


@pytest.mark.parametrize("cursor", ["", "-", "1", "1-", "-1", "a-b", "1-2-3", "1--2", "1-²"])
def test_another_text_is_no_position(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Position.parse(cursor)


@pytest.mark.parametrize("cursor", ["9" * 30 + "-1", "1-" + "9" * 30])
def test_a_position_out_of_time_is_none(cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        Position.parse(cursor)


def at(seconds: int) -> datetime:
    return START + timedelta(seconds=seconds)


FILTERED: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [8, 7, 6, 5, 4, 3, 2, 1]),
    ({"key_id": 1}, [8, 6, 4, 2]),
    ({"model": "a"}, [6, 5, 2, 1]),
    ({"label": "y"}, [4, 3, 2, 1]),
    ({"key_id": 1, "model": "a"}, [6, 2]),
    ({"key_id": 1, "label": "y"}, [4, 2]),
    ({"model": "a", "label": "y"}, [2, 1]),
    ({"key_id": 1, "model": "a", "label": "y"}, [2]),
    ({"request_id": "r8"}, [8]),
    ({"request_id": "r8", "key_id": 0}, []),
    ({"key_id": 9}, []),
    ({"since": at(2)}, [8, 7, 6, 5, 4, 3]),
    ({"until": at(2)}, [2, 1]),
    ({"key_id": 1, "since": at(3), "until": at(7)}, [6, 4]),
    ({"since": at(7).astimezone(timezone(timedelta(hours=-8)))}, [8]),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERED)
async def test_filters_choose(
    database: Database, filters: dict[str, Any], expected: list[int]
) -> None:
    await insert(
        database,
        [
            replace(p, key_id=n % 2, model="aabb"[n % 4], label="yx"[n // 4], request_id=f"r{p.id}")
            for n, p in enumerate(numbered(8))
        ],
    )
    # The fifth is 4 % 4 = 0: models are a a b b a a b b, keys 0 1 0 1 0 1 0 1.
    assert await ids(database, **filters) == expected
    if len(expected) > 1:
        second = next(p for p in await page(database, **filters) if p.id == expected[0])
        after = Position.of(second)
        assert await ids(database, after=after, **filters) == expected[1:]


async def test_an_export_gives_everything_once_while_others_write(database: Database) -> None:
    await insert(database, numbered(10))
    seen: list[int] = []
    async for chunk in export(database, rows=3):
        seen += [p.id for p in chunk]
        await insert(database, [replace(p, id=99) for p in numbered(60)[20 + len(seen) :][:1]])
    assert seen == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]


async def test_an_export_is_filtered_and_may_be_empty(database: Database) -> None:
    await insert(database, numbered(3))
    assert [c async for c in export(database, Filters(label="other"))] == []
    chunks = [c async for c in export(database, Filters(since=START + timedelta(seconds=1)))]
    assert [p.id for chunk in chunks for p in chunk] == [3, 2]


async def trimmed(database: Database, **bounds: Any) -> int:
    return sum([count async for count in trim(database, **bounds)])


async def test_what_is_older_is_deleted_in_small_pieces(database: Database) -> None:
    await insert(database, numbered(10))
    assert await trimmed(database, before=START + timedelta(seconds=6), limit=4) == 6
    assert await ids(database) == [10, 9, 8, 7]
    assert await trimmed(database, before=START, limit=4) == 0


async def test_what_is_beyond_a_number_of_rows_is_deleted(database: Database) -> None:
    await insert(database, numbered(10))
    assert await trimmed(database, max_rows=10) == 0
    assert await trimmed(database, max_rows=3, limit=2) == 7
    assert await ids(database) == [10, 9, 8]
    assert await trimmed(database, max_rows=0) == 3


async def test_one_delete_is_as_small_as_asked(database: Database) -> None:
    await insert(database, numbered(10))
    end = Position(START + timedelta(seconds=100), 0)
    deleted = await database.run(lambda s: PredictionRepository(s).delete_from(end, limit=4))
    assert deleted == 4
    assert await ids(database) == [10, 9, 8, 7, 6, 5]


async def test_the_text_of_an_input_is_not_in_a_repr() -> None:
    assert "text" not in repr(replace(ONE, task="t"))
