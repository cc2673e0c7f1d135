"""Files and batches as they are stored, on SQLite and on PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from databases import migrated
from sqlalchemy import text

from app.core.backoff import Backoff
from app.db.session import Database
from app.features.jobs.policy import RetryPolicy
from app.features.openai_batches.files import CHUNK_BYTES, FileRepository
from app.features.openai_batches.leases import BatchLeases
from app.features.openai_batches.repository import BatchRepository
from app.features.openai_batches.values import (
    Batch,
    BatchStatus,
    LineAnswer,
    LineError,
    NewBatch,
    Purpose,
    StoredFile,
)

T = TypeVar("T")
NEW = NewBatch(
    id="batch_a",
    collection=7,
    request_id="the-request",
    endpoint="/v1/embeddings",
    completion_window="24h",
    meta={"a": "ä"},
    output_expires_s=None,
)
HELD: dict[str, Any] = {"lease": "mine"}
POLICY = RetryPolicy(attempts=2, backoff=Backoff(first_s=5, max_s=60))
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url) as database:
        yield database


async def files(database: Database, work: Callable[[FileRepository], T]) -> T:
    return await database.run(lambda session: work(FileRepository(session)))


async def leases(database: Database, work: Callable[[BatchLeases], T]) -> T:
    return await database.run(lambda session: work(BatchLeases(session)))


async def batches(database: Database, work: Callable[[BatchRepository], T]) -> T:
    return await database.run(lambda session: work(BatchRepository(session)))


async def add_file(
    database: Database, content: bytes = b"x", file_id: str = "file-a", collection: int = 7
) -> StoredFile:
    file = await files(
        database,
        lambda f: f.add(
            file_id=file_id, collection=collection, purpose=Purpose.BATCH, filename="in"
        ),
    )
    assert await files(database, lambda f: f.append(file.key, content))
    stored = await files(database, lambda f: f.complete(file.key, expires_s=3_600))
    assert stored is not None
    return stored


async def add(database: Database, **changed: Any) -> Batch:
    file = await add_file(database, file_id=f"file-{changed.get('id', 'a')}")
    new = replace(NEW, **changed)
    return await batches(database, lambda b: b.add(new, file, window_s=60))


async def claim(database: Database, lease: str = "mine") -> Batch | None:
    return await leases(database, lambda b: b.claim(lease=lease, lease_s=60))


async def begun(database: Database, **changed: Any) -> Batch:
    await add(database, **changed)
    batch = await claim(database)
    assert batch is not None
    running = await leases(database, lambda b: b.begin(batch.key, **HELD, total=3))
    assert running is not None
    return running


async def set_due(database: Database, table: str = "batches", column: str = "due_at") -> None:
    change = text(f"UPDATE {table} SET {column} = :moment")  # noqa: S608  # names of this file
    moment = {"moment": LONG_AGO.replace(tzinfo=None) if database.dialect == "sqlite" else LONG_AGO}
    await database.run(lambda session: session.execute(change, moment) and None)


async def content(database: Database, key: int | None) -> bytes:
    assert key is not None
    return b"".join(await files(database, lambda f: f.chunks(key, first=0, limit=100)))


def answer(end: int, said: str, *, is_good: bool = True) -> LineAnswer:
    return LineAnswer(end=end, text=said.encode(), is_good=is_good)


async def test_a_file_comes_back_as_it_was_stored_and_only_when_it_is_whole(
    database: Database,
) -> None:
    one = b"\0" + bytes(range(256)) * 1_100  # more than a chunk, less than two
    file = await files(
        database,
        lambda f: f.add(file_id="file-a", collection=7, purpose=Purpose.BATCH, filename="in.jsonl"),
    )
    for _ in range(2):
        assert await files(database, lambda f: f.append(file.key, one))
    assert await files(database, lambda f: f.by_id("file-a", collection=7)) is None
    assert await files(database, lambda f: f.usage(7)) == (1, 2 * len(one))
    await files(database, lambda f: f.complete(file.key, filename="ü", expires_s=3_600))
    stored = await files(database, lambda f: f.by_id("file-a", collection=7))
    assert stored is not None
    assert (stored.filename, stored.size, stored.chunks) == ("ü", 2 * len(one), 4)
    assert stored.expires_at == stored.created_at + timedelta(seconds=3_600)
    assert await content(database, file.key) == 2 * one
    parts = await files(database, lambda f: f.chunks(file.key, first=0, limit=1))
    assert [len(part) for part in parts] == [CHUNK_BYTES]
    assert await files(database, lambda f: f.by_id("file-a", collection=8)) is None
    assert await files(database, lambda f: f.by_id("file-a", collection=None)) == stored
    assert await files(database, lambda f: f.delete([file.key])) == 1
    assert await files(database, lambda f: f.chunks(file.key, first=0, limit=9)) == []
    assert not await files(database, lambda f: f.append(file.key, b"late"))


async def test_files_are_listed_in_both_orders_from_one_on(database: Database) -> None:
    stored = [await add_file(database, file_id=f"file-{n}") for n in range(4)]
    await add_file(database, file_id="file-other", collection=8)

    async def page(*, after: StoredFile | None, ascending: bool) -> list[str]:
        found = await files(
            database,
            lambda f: f.page(
                collection=7, purpose="batch", after=after, is_ascending=ascending, limit=2
            ),
        )
        return [file.id for file in found]

    assert await page(after=None, ascending=True) == ["file-0", "file-1"]
    assert await page(after=stored[1], ascending=True) == ["file-2", "file-3"]
    assert await page(after=None, ascending=False) == ["file-3", "file-2"]
    assert await page(after=stored[2], ascending=False) == ["file-1", "file-0"]


async def test_what_is_too_old_is_deleted_unless_a_batch_works_with_it(database: Database) -> None:
    batch = await begun(database)
    await leases(
        database, lambda b: b.write(batch.key, **HELD, after=0, answers=[answer(3, "good\n")])
    )
    given_up = await files(
        database,
        lambda f: f.add(file_id="file-u", collection=7, purpose=Purpose.BATCH, filename=""),
    )

    async def delete() -> int:
        return await files(database, lambda f: f.delete_expired(abandoned_s=60, limit=10))

    assert await delete() == 0
    await set_due(database, "batch_files", "expires_at")
    await set_due(database, "batch_files", "created_at")
    assert await files(database, lambda f: f.is_in_use(batch.input_file_key))
    assert await files(database, lambda f: f.by_id("file-a", collection=7)) is None  # expired
    assert await delete() == 1
    assert await files(database, lambda f: f.chunks(given_up.key, first=0, limit=1)) == []
    await leases(
        database, lambda b: b.end(batch.key, **HELD, status=BatchStatus.COMPLETED, file_s=None)
    )
    await set_due(database, "batch_files", "expires_at")
    assert await delete() == 2
    assert await batches(database, lambda b: b.delete_finished(age_s=60, limit=10)) == 0
    await set_due(database, "batches", "finished_at")
    assert await batches(database, lambda b: b.delete_finished(age_s=60, limit=10)) == 1


async def test_answers_are_written_with_what_is_done_and_never_without_the_lease(
    database: Database,
) -> None:
    batch = await begun(database)
    assert (batch.status, batch.meta, batch.total) == (BatchStatus.IN_PROGRESS, {"a": "ä"}, 3)
    first = [answer(10, "1\n"), answer(20, "2\n", is_good=False)]
    written = await leases(database, lambda b: b.write(batch.key, **HELD, after=0, answers=first))
    assert written is not None
    assert (written.completed, written.failed, written.offset) == (1, 1, 20)
    stolen = await leases(
        database, lambda b: b.write(batch.key, lease="other", after=20, answers=[answer(30, "3\n")])
    )
    assert stolen is None
    twice = await leases(
        database, lambda b: b.write(batch.key, **HELD, after=0, answers=[answer(10, "1\n")])
    )
    assert twice is None
    last = await leases(
        database, lambda b: b.write(batch.key, **HELD, after=20, answers=[answer(30, "3\n")])
    )
    assert last is not None
    assert last.output_bytes == 6
    assert await content(database, last.output_file_key) == b"1\n3\n"
    assert await content(database, last.error_file_key) == b"2\n"
    for call in (
        lambda b: b.extend(batch.key, lease="other", lease_s=5),
        lambda b: b.begin(batch.key, lease="other", total=1),
        lambda b: b.finalize(batch.key, lease="other"),
        lambda b: b.end(batch.key, lease="other", status=BatchStatus.COMPLETED, file_s=1),
        lambda b: b.fail_attempt(batch.key, lease="other", policy=POLICY, file_s=1, code="x"),
    ):
        assert await leases(database, call) is None
    assert not await leases(database, lambda b: b.release(batch.key, lease="other"))
    ended = await leases(
        database, lambda b: b.end(batch.key, **HELD, status=BatchStatus.COMPLETED, file_s=60)
    )
    assert ended is not None
    assert (ended.is_open, ended.lease, ended.errors) == (False, None, None)
    assert await files(database, lambda f: f.by_id(ended.output_file_id or "", collection=7))
    assert await claim(database) is None


async def test_a_batch_whose_process_died_is_claimed_by_another(database: Database) -> None:
    key = (await begun(database)).key
    assert await claim(database, "other") is None  # the lease holds
    for stalled in (0, 1, 2):  # the first turn had begun the batch
        await set_due(database)
        again = await claim(database, f"turn{stalled}")
        assert again is not None
        assert again.stalled_attempts == stalled
    held = {"lease": "turn2"}
    await leases(database, lambda b: b.write(key, **held, after=0, answers=[answer(5, "1\n")]))
    await set_due(database)
    assert (await claim(database)).stalled_attempts == 0  # type: ignore[union-attr]  # it is due
    assert await leases(database, lambda b: b.release(key, **HELD, due_in_s=60))
    assert await claim(database) is None
    assert not await leases(database, lambda b: b.is_due())


async def test_turns_that_fail_are_repeated_later_and_not_for_ever(database: Database) -> None:
    batch = await begun(database)
    await leases(
        database, lambda b: b.write(batch.key, **HELD, after=0, answers=[answer(5, "1\n")])
    )

    async def fail() -> Batch:
        failed = await leases(
            database,
            lambda b: b.fail_attempt(batch.key, **HELD, policy=POLICY, file_s=60, code="Broken"),
        )
        assert failed is not None
        return failed

    assert (await fail()).stalled_attempts == 0  # it had written
    await set_due(database)
    await claim(database)
    waits = await fail()
    assert (waits.stalled_attempts, waits.is_open) == (1, True)
    assert waits.due_at > datetime.now(UTC)
    for _ in range(2):  # the last is one that runs nothing
        await set_due(database)
        await claim(database)
        ended = await fail()
    assert (ended.status, ended.is_open) == (BatchStatus.FAILED, False)
    assert [error["code"] for error in ended.errors or ()] == ["Broken"]
    assert await files(database, lambda f: f.by_id(ended.output_file_id or "", collection=7))


async def test_a_cancelled_batch_stays_so_whatever_its_process_does(database: Database) -> None:
    await add(database)
    batch = await claim(database)
    assert batch is not None
    cancelled = await batches(database, lambda b: b.cancel(batch.key))
    assert cancelled is not None
    assert cancelled.is_cancelled
    assert await batches(database, lambda b: b.cancel(batch.key)) is None
    begun = await leases(database, lambda b: b.begin(batch.key, **HELD, total=3))
    assert begun is not None
    assert begun.status is BatchStatus.CANCELLING
    extended = await leases(database, lambda b: b.extend(batch.key, **HELD, lease_s=60))
    assert extended is not None
    assert extended.is_cancelled
    final = await leases(database, lambda b: b.finalize(batch.key, **HELD))
    assert final is not None
    assert final.status is BatchStatus.CANCELLING


async def test_owners_take_turns_and_see_their_own(database: Database) -> None:
    for name, collection in (("batch_1", 7), ("batch_2", 7), ("batch_3", 8)):
        await add(database, id=name, collection=collection)
    turns = []
    for _ in range(3):
        batch = await claim(database)
        assert batch is not None
        turns.append(batch.id)
    assert turns == ["batch_1", "batch_3", "batch_2"]
    assert await batches(database, lambda b: b.count_open(7)) == 2
    page = await batches(database, lambda b: b.page(collection=7, after=None, limit=1))
    assert [batch.id for batch in page] == ["batch_2"]
    rest = await batches(database, lambda b: b.page(collection=7, after=page[0], limit=5))
    assert [batch.id for batch in rest] == ["batch_1"]
    assert await batches(database, lambda b: b.by_id("batch_3", collection=7)) is None
    failed = await leases(
        database,
        lambda b: b.end(
            page[0].key,
            **HELD,
            status=BatchStatus.FAILED,
            file_s=None,
            errors=[LineError(code="x", message="y", line=3)],
        ),
    )
    assert failed is not None
    assert failed.errors == [{"code": "x", "message": "y", "param": None, "line": 3}]
