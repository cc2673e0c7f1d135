"""The exact index: its memory follows the tables, whatever happens meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from databases import migrated, says
from passages import SPACE, remove, store, toward
from sqlalchemy import event

from app.db.session import Database
from app.errors import DatabaseUnavailableError, OverloadedError
from app.features.documents.metrics import SearchMetrics
from app.features.documents.vectors.base import Query
from app.features.documents.vectors.cache import CHUNK
from app.features.documents.vectors.exact import MAX_SEARCHES, ExactIndex
from app.features.documents.vectors.matrix import MIN_ROWS, Matrix, Passages

QUERY = Query(vector=toward(0), space=SPACE, limit=3)
BYTES = 384 * 4 + 3 * 8  # of a passage
MAX_DELETIONS = 100_000  # as migration 0004 says
COUNT_DELETED = says("SELECT count(*) FROM deleted_passages")
DELETED_BEFORE = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
    " INSERT INTO deleted_passages (passage_id) SELECT 1000000 + i FROM n"
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with migrated(f"sqlite:///{tmp_path / 'test.db'}", timeout_s=20) as database:
        yield database


@pytest.fixture
def metrics() -> SearchMetrics:
    return SearchMetrics()


@pytest.fixture
async def index(database: Database, metrics: SearchMetrics) -> AsyncIterator[ExactIndex]:
    index = ExactIndex(database, metrics=metrics)
    yield index
    await index.close()


async def found(index: ExactIndex) -> list[str]:
    return [hit.id for hit in await index.search(QUERY)]


def rows_read(database: Database) -> list[str]:
    """Return a list that grows by each statement that reads vectors."""
    read: list[str] = []

    @event.listens_for(database._engine, "after_cursor_execute")
    def note(*call: object) -> None:
        if "passages.vector" in str(call[2]):
            read.append(str(call[3]))

    return read


async def test_a_search_reads_only_what_is_new(database: Database, index: ExactIndex) -> None:
    await store(database, {"a": [1], "b": [2]})
    read = rows_read(database)
    assert await found(index) == ["a", "b"]
    assert await found(index) == ["a", "b"]
    assert len(read) == 1
    await store(database, {"c": [0]})
    assert await found(index) == ["c", "a", "b"]
    assert await found(index) == ["c", "a", "b"]
    assert len(read) == 2
    assert "2" in read[1]  # after the second passage


async def test_what_is_stored_in_another_space_is_not_read_again_and_again(
    database: Database, index: ExactIndex
) -> None:
    await store(database, {"a": [1]})
    await store(database, {"a": [1]}, space="other@1")
    assert await found(index) == ["a"]
    read = rows_read(database)
    assert await found(index) == ["a"]
    assert read == []


async def test_more_than_one_read_takes_are_all_found(
    database: Database, index: ExactIndex, metrics: SearchMetrics
) -> None:
    count = CHUNK + 10
    await store(database, {f"d{n}": [90 - n * 0.001] for n in range(count)})
    assert await found(index) == [f"d{n}" for n in (count - 1, count - 2, count - 3)]
    size = metrics.registry.get_sample_value("mlapi_search_index_bytes")
    assert size == count * BYTES


async def test_memory_of_deleted_passages_is_given_back(
    database: Database, index: ExactIndex, metrics: SearchMetrics
) -> None:
    await store(database, {f"d{n}": [n] for n in range(8)})
    await found(index)
    for number in range(3):
        await remove(database, f"d{number}")
    assert await found(index) == ["d3", "d4", "d5"]
    assert metrics.registry.get_sample_value("mlapi_search_index_bytes") == 5 * BYTES


async def test_deletions_are_forgotten_and_whoever_is_behind_reads_everything_again(
    database: Database, index: ExactIndex
) -> None:
    await store(database, {"a": [1], "b": [2], "c": [3]})
    behind = ExactIndex(database, metrics=SearchMetrics())
    assert await found(behind) == await found(index) == ["a", "b", "c"]
    await remove(database, "b")
    assert await found(index) == ["a", "c"]
    await database.run(says(DELETED_BEFORE, count=MAX_DELETIONS))
    await remove(database, "c")
    assert await database.read(COUNT_DELETED) == MAX_DELETIONS
    assert await found(behind) == await found(index) == ["a"]
    await behind.close()


async def test_a_search_that_is_given_up_disturbs_no_other(
    database: Database, index: ExactIndex
) -> None:
    await store(database, {f"d{n}": [n] for n in range(50)})
    leaving = [asyncio.create_task(found(index)) for _ in range(10)]
    staying = [asyncio.create_task(found(index)) for _ in range(10)]
    await asyncio.sleep(0)  # all have begun
    for task in leaving:
        task.cancel()
    assert await asyncio.gather(*staying) == [["d0", "d1", "d2"]] * 10
    assert all(
        isinstance(e, BaseException) for e in await asyncio.gather(*leaving, return_exceptions=True)
    )


async def test_more_searches_than_the_bound_are_refused_at_once(
    database: Database, index: ExactIndex
) -> None:
    await store(database, {"a": [1]})
    searches = [asyncio.create_task(found(index)) for _ in range(MAX_SEARCHES + 1)]
    done = await asyncio.gather(*searches, return_exceptions=True)
    refused = [e for e in done if isinstance(e, OverloadedError)]
    assert [e.retry_after_s for e in refused] == [1]
    assert await found(index) == ["a"]


async def test_a_database_that_is_away_is_told_and_forgotten(
    database: Database, index: ExactIndex
) -> None:
    await store(database, {"a": [1]})
    await database.run(says("ALTER TABLE passages RENAME TO hidden"))
    with pytest.raises(DatabaseUnavailableError):
        await found(index)
    await database.run(says("ALTER TABLE hidden RENAME TO passages"))
    assert await found(index) == ["a"]


def made(numbers: range) -> Passages:
    numbered = np.array(numbers, np.int64)
    vectors = np.stack([toward(float(n), 2) for n in numbers])
    return Passages(ids=numbered, document_keys=numbered, collections=numbered * 0, vectors=vectors)


def best(matrix: Matrix, limit: int) -> list[int]:
    scored = matrix.best(toward(0, 2), collection=None, document_keys=None, limit=limit)
    return [number for number, _ in scored]


def test_a_matrix_grows_without_copying_at_each_addition() -> None:
    matrix = Matrix(2)
    rooms = set()
    for start in range(0, 4 * MIN_ROWS, 64):
        matrix.add(made(range(start, start + 64)))
        rooms.add(matrix._room.vectors.ctypes.data)
    assert len(rooms) <= 6
    assert best(matrix, 3) == [0, 360, 720]


def test_a_matrix_forgets_rows_that_it_has_and_passes_over_others() -> None:
    matrix = Matrix(2)
    matrix.remove(np.array([5], np.int64))
    matrix.add(made(range(100)))
    matrix.remove(np.array([0, 2, 500, -1], np.int64))
    assert best(matrix, 3) == [1, 3, 4]
    matrix.remove(np.array([0, 1, *range(10, 60)], np.int64))
    assert best(matrix, 3) == [3, 4, 5]
    matrix.add(made(range(100, 101)))
    assert best(matrix, 100) == [*range(3, 10), *range(60, 101)]
