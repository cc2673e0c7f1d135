"""Documents and their passages, on SQLite and on PostgreSQL."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from databases import migrated, says
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.failures import StatementError
from app.db.session import Database
from app.features.documents import copy
from app.features.documents.copy import copy_into
from app.features.documents.passages import NewPassage, PassageRepository, _rows
from app.features.documents.repository import Document, DocumentRepository, NewDocument, Source
from app.features.documents.tables import PassageRow

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
SPACE = "minilm@1"
OTHER_SPACE = "minilm@2"
METADATA = {"a": [1, 2.5, None, True, {"b": "é🙂"}], "c": 2**63 - 1, "d": 1e20, "e": ""}
TIMEOUT_S = 20


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, timeout_s=TIMEOUT_S) as database:
        yield database


def new(id: str, text: str = "a text", **metadata: object) -> NewDocument:  # noqa: A002
    return NewDocument(id=id, text=text, metadata=metadata)


async def upsert(
    database: Database, *documents: NewDocument, collection: int = 0, now: datetime = NOW
) -> list[int]:
    return await database.run(
        lambda session: DocumentRepository(session).upsert_many(
            collection, documents, request_id="r", now=now
        )
    )


async def get(
    database: Database, document_id: str, *, collection: int = 0, sees_all: bool = False
) -> Document | None:
    return await database.read(
        lambda session: DocumentRepository(session).get(
            document_id, collection=collection, sees_all=sees_all
        )
    )


async def delete(
    database: Database, document_id: str, *, collection: int = 0, sees_all: bool = False
) -> bool:
    return await database.run(
        lambda session: DocumentRepository(session).delete(
            document_id, collection=collection, sees_all=sees_all
        )
    )


async def texts(database: Database, *keys: int) -> dict[int, Source]:
    return await database.read(lambda session: DocumentRepository(session).texts(keys))


async def source(database: Database, document_id: str = "a", **fields: Any) -> Source:
    """Store a document and return what vectors of it are made of."""
    (key,) = await upsert(database, new(document_id, **fields))
    return (await texts(database, key))[key]


def vector(number: float, dimensions: int = 384) -> np.ndarray[Any, np.dtype[np.float32]]:
    vector = np.random.default_rng(int(number * 7)).standard_normal(dimensions).astype(np.float32)
    unit: np.ndarray[Any, np.dtype[np.float32]] = vector / np.linalg.norm(vector)
    return unit


def passages(*numbers: float) -> list[NewPassage]:
    return [
        NewPassage(start=place, end=place + 3, vector=vector(number))
        for place, number in enumerate(numbers)
    ]


async def put(
    database: Database, embedded: Sequence[tuple[Source, Sequence[NewPassage]]], space: str = SPACE
) -> list[bool]:
    return await database.run(
        lambda session: PassageRepository(session).replace_many(embedded, space)
    )


async def stored(database: Database, space: str = SPACE) -> list[tuple[Any, ...]]:
    """Return key, ordinal, start and end of all passages of a space, in order."""
    row = PassageRow
    found = select(row.document_key, row.ordinal, row.start, row.end).where(row.space == space)
    ordered = found.order_by(row.document_key, row.ordinal)
    return await database.read(lambda s: [tuple(line) for line in s.execute(ordered)])


async def test_a_document_comes_back_as_it_was_stored(database: Database) -> None:
    asked = NewDocument(id="a:b.c_d-1", text="é 🙂 \\ ' \" %s :x \n\u2028", metadata=METADATA)
    (key,) = await upsert(database, asked)
    found = await get(database, "a:b.c_d-1")
    assert found == Document(
        key=key,
        collection=0,
        id=asked.id,
        text=asked.text,
        metadata=METADATA,
        revision=1,
        created_at=NOW,
        updated_at=NOW,
        is_searchable=False,
    )


async def test_keys_come_in_the_order_of_the_documents(database: Database) -> None:
    keys = await upsert(database, new("c"), new("a"), new("b"))
    assert [(await texts(database, *keys))[key].key for key in keys] == keys
    assert len(set(keys)) == 3
    again = await upsert(database, new("b"), new("d"), new("c", "another text"))
    assert again[0] == keys[2]
    assert again[2] == keys[0]


async def test_nothing_is_stored_of_nothing(database: Database) -> None:
    assert await upsert(database) == []
    assert await put(database, []) == []


async def test_a_new_text_is_a_new_revision_and_takes_the_passages_away(
    database: Database,
) -> None:
    first = await source(database)
    assert await put(database, [(first, passages(1, 2))]) == [True]
    (key,) = await upsert(database, new("a", "new text", n=1), now=LATER)
    found = await get(database, "a")
    assert found is not None
    assert (key, found.key) == (first.key, first.key)
    assert (found.revision, found.text, found.metadata) == (2, "new text", {"n": 1})
    assert (found.created_at, found.updated_at) == (NOW, LATER)
    assert not found.is_searchable
    assert await stored(database) == []


async def test_the_same_text_keeps_revision_and_passages_and_takes_new_metadata(
    database: Database,
) -> None:
    first = await source(database)
    await put(database, [(first, passages(1))])
    assert await upsert(database, new("a", n=2), new("b"), now=LATER) != []
    found = await get(database, "a")
    assert found is not None
    assert (found.revision, found.text, found.metadata) == (1, "a text", {"n": 2})
    assert (found.created_at, found.updated_at) == (NOW, LATER)
    assert found.is_searchable


async def test_a_thousand_documents_of_all_kinds_are_stored_in_one_call(
    database: Database,
) -> None:
    first = await upsert(database, *(new(f"d{n}", f"text {n}") for n in range(700)))
    again = [new(f"d{n}", f"text {n}" if n % 2 else "changed") for n in range(1_000)]
    keys = await upsert(database, *again)
    assert keys[:700] == first
    found = await texts(database, *keys)
    assert [found[key].text for key in keys] == [document.text for document in again]
    assert {found[key].revision for key in keys[0:700:2]} == {2}
    assert {found[key].revision for key in keys[1:700:2]} == {1}


async def test_the_same_id_is_another_document_in_another_collection(database: Database) -> None:
    (mine,) = await upsert(database, new("a", "mine"), collection=1)
    (others,) = await upsert(database, new("a", "others"), collection=2)
    assert mine != others
    for collection, said in ((1, "mine"), (2, "others")):
        found = await get(database, "a", collection=collection)
        assert found is not None
        assert found.text == said
    assert await get(database, "a", collection=3) is None


async def test_who_sees_all_gets_its_own_first(database: Database) -> None:
    await upsert(database, new("a", "first"), new("b"), collection=1)
    await upsert(database, new("a", "own"), collection=2)
    own = await get(database, "a", collection=2, sees_all=True)
    others = await get(database, "a", collection=3, sees_all=True)
    assert own is not None
    assert others is not None
    assert (own.text, others.text) == ("own", "first")
    assert await get(database, "b", collection=2, sees_all=True) is not None


async def test_deleting_takes_passages_along_and_says_whether_there_was_one(
    database: Database,
) -> None:
    kept, gone = await source(database, "a"), await source(database, "b")
    await put(database, [(kept, passages(1)), (gone, passages(2, 3))])
    assert await delete(database, "b")
    assert not await delete(database, "b")
    assert await get(database, "b") is None
    assert await stored(database) == [(kept.key, 0, 0, 3)]


async def test_a_key_is_never_used_again(database: Database) -> None:
    keys = await upsert(database, new("a"), new("b"))
    await delete(database, "b")
    await delete(database, "a")
    assert (await upsert(database, new("a")))[0] > max(keys)


async def test_one_deletes_only_what_one_sees_and_its_own_first(database: Database) -> None:
    await upsert(database, new("a", "others"), collection=1)
    await upsert(database, new("a", "own"), collection=2)
    assert not await delete(database, "a", collection=3)
    assert await delete(database, "a", collection=2, sees_all=True)
    left = await get(database, "a", collection=2, sees_all=True)
    assert left is not None
    assert left.text == "others"
    assert await delete(database, "a", collection=2, sees_all=True)


async def test_pages_follow_each_other_newest_first(database: Database) -> None:
    await upsert(database, *(new(f"{n}") for n in range(5)), collection=1)
    await upsert(database, new("other"), collection=2)

    async def page(**asked: Any) -> list[Document]:
        return await database.read(
            lambda s: DocumentRepository(s).page(asked.pop("collection", 1), **asked)
        )

    first = await page(limit=3)
    assert [document.id for document in first] == ["4", "3", "2"]
    rest = await page(before_key=first[-1].key, limit=3)
    assert [document.id for document in rest] == ["1", "0"]
    assert await page(before_key=rest[-1].key, limit=3) == []
    everyone = await database.read(lambda s: DocumentRepository(s).page(None, limit=2))
    assert [document.id for document in everyone] == ["other", "4"]


async def test_keys_are_found_by_ids_those_of_ones_own_first(database: Database) -> None:
    (others,) = await upsert(database, new("a"), collection=1)
    own = await upsert(database, new("a"), new("b"), collection=2)

    async def keys_of(*ids: str, collection: int = 2, sees_all: bool = False) -> dict[str, int]:
        return await database.read(
            lambda s: DocumentRepository(s).keys_of(ids, collection=collection, sees_all=sees_all)
        )

    assert await keys_of("a", "b", "c", "a") == {"a": own[0], "b": own[1]}
    assert await keys_of("a", "b", collection=1) == {"a": others}
    assert await keys_of("a", "b", sees_all=True) == {"a": own[0], "b": own[1]}
    assert await keys_of("a", collection=3, sees_all=True) == {"a": others}
    assert await keys_of() == {}


async def test_more_ids_than_a_statement_takes_are_found(database: Database) -> None:
    (key,) = await upsert(database, new("n39999"))
    ids = [f"n{n}" for n in range(40_000)]
    found = await database.read(
        lambda s: DocumentRepository(s).keys_of(ids, collection=0, sees_all=False)
    )
    assert found == {"n39999": key}
    assert list(await texts(database, *range(1, 40_000))) == [key]


async def test_documents_that_are_gone_have_no_text(database: Database) -> None:
    keys = await upsert(database, new("a"), new("b", "other"))
    await delete(database, "a")
    assert await texts(database, *keys) == {
        keys[1]: Source(key=keys[1], collection=0, revision=1, text="other")
    }


@pytest.mark.parametrize("dimensions", [384, 7])
async def test_passages_are_stored_with_their_vectors_to_the_last_bit(
    database: Database, dimensions: int
) -> None:
    of = await source(database)
    new_passages = [
        NewPassage(start=n * 10, end=n * 10 + 9, vector=vector(n, dimensions)) for n in range(3)
    ]
    assert await put(database, [(of, new_passages)]) == [True]
    row = PassageRow
    every = select(row).order_by(row.ordinal)
    found = await database.read(
        lambda s: [
            (p.collection, p.space, p.ordinal, p.start, p.end, p.dimensions, list(p.vector))
            for p in s.scalars(every)
        ]
    )
    for number, (*rest, read) in enumerate(found):
        assert rest == [0, SPACE, number, number * 10, number * 10 + 9, dimensions]
        assert np.array_equal(np.asarray(read, dtype=np.float32), new_passages[number].vector)
    assert len(found) == 3


async def test_passages_replace_those_of_their_space_and_may_be_written_twice(
    database: Database,
) -> None:
    of = await source(database)
    await put(database, [(of, passages(1, 2, 3))])
    await put(database, [(of, passages(9))], OTHER_SPACE)
    for _ in range(2):
        assert await put(database, [(of, passages(4, 5))]) == [True]
        assert await stored(database) == [(of.key, 0, 0, 3), (of.key, 1, 1, 4)]
    assert await stored(database, OTHER_SPACE) == [(of.key, 0, 0, 3)]


async def test_passages_of_an_older_text_or_of_no_document_are_not_stored(
    database: Database,
) -> None:
    old, gone, good = [await source(database, name) for name in "abc"]
    await upsert(database, new("a", "new text"))
    await delete(database, "b")
    embedded = [(old, passages(1)), (gone, passages(2)), (good, passages(3))]
    assert await put(database, embedded) == [False, False, True]
    assert await stored(database) == [(good.key, 0, 0, 3)]


async def test_a_document_that_is_named_twice_has_one_set_of_passages(database: Database) -> None:
    of = await source(database)
    assert await put(database, [(of, passages(1, 2)), (of, passages(3))]) == [True, True]
    assert await stored(database) == [(of.key, 0, 0, 3)]


async def test_text_is_never_read_as_sql(database: Database) -> None:
    said = "'; DROP TABLE documents; -- %(x)s :y {z} \\N \\u0041"
    of = await source(database, "a", text=said, **{said: said})
    await put(database, [(of, passages(1))], said)
    found = await get(database, "a")
    assert found is not None
    assert (found.text, found.metadata) == (said, {said: said})
    assert len(await stored(database, said)) == 1


async def test_the_text_is_not_in_a_repr(database: Database) -> None:
    of = await source(database, text="secret")
    assert "secret" not in repr(of) + repr(await get(database, "a")) + repr(new("a", "secret"))


async def all_at_once(*works: Callable[[], Any]) -> list[Any]:
    return await asyncio.gather(*(work() for work in works))


async def test_writers_of_the_same_documents_take_turns_and_none_fails(
    database: Database,
) -> None:
    names = [f"d{n}" for n in range(30)]
    keys = await upsert(database, *map(new, names))
    sources = list((await texts(database, *keys)).values())
    embedded = [(of, passages(1, 2)) for of in sources]
    rounds = 4
    await all_at_once(
        *[lambda: upsert(database, *(new(n) for n in names))] * rounds,
        *[lambda: upsert(database, *(new(n) for n in reversed(names)))] * rounds,
        *[lambda: put(database, embedded)] * rounds,
        *[lambda: put(database, embedded[::-1])] * rounds,
        *[lambda: delete(database, "d7")] * rounds,
    )
    left = sorted((key, n, n, n + 3) for key in keys for n in range(2) if key != keys[7])
    assert await stored(database) == left


async def test_many_that_bring_the_same_new_documents_store_them_once(
    database: Database,
) -> None:
    names = [f"d{n}" for n in range(20)]
    answers = await all_at_once(
        *(lambda n=n: upsert(database, *(new(name, f"by {n}") for name in names)) for n in range(8))
    )
    assert all(answer == answers[0] for answer in answers)
    found = await texts(database, *answers[0])
    assert {source.revision for source in found.values()} == {8}


async def test_a_change_that_is_about_to_be_committed_is_waited_for(postgres_url: str) -> None:
    async with migrated(postgres_url, timeout_s=TIMEOUT_S) as database:
        of = await source(database)
        is_locked, may_commit = threading.Event(), threading.Event()

        def change(session: Session) -> None:
            DocumentRepository(session).upsert_many(
                0, [new("a", "new text")], request_id="r", now=NOW
            )
            is_locked.set()
            may_commit.wait(TIMEOUT_S)

        changing = asyncio.create_task(database.run(change))
        await asyncio.to_thread(is_locked.wait, TIMEOUT_S)
        putting = asyncio.create_task(put(database, [(of, passages(1))]))
        waiting = says("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        while not await database.read(waiting):
            await asyncio.sleep(0)
        may_commit.set()
        await changing
        assert await putting == [False]
        assert await stored(database) == []


async def test_a_copy_into_a_dead_connection_is_done_again_on_a_new_one(postgres_url: str) -> None:
    async with (
        migrated(postgres_url, timeout_s=TIMEOUT_S) as database,
        migrated(postgres_url) as other,
    ):
        of = await source(database)
        seen: list[int] = []
        is_ready, is_dead = threading.Event(), threading.Event()

        def work(session: Session) -> None:
            seen.append(says("SELECT pg_backend_pid()")(session))
            is_ready.set()
            is_dead.wait(TIMEOUT_S)
            repository = PassageRepository(session)
            repository._insert(_rows(of, space=SPACE, passages=passages(1)))

        copying = asyncio.create_task(database.run(work))
        await asyncio.to_thread(is_ready.wait, TIMEOUT_S)
        await other.run(says("SELECT pg_terminate_backend(:pid)", pid=seen[0]))
        alive = says("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid", pid=seen[0])
        while await other.read(alive):
            await asyncio.sleep(0)
        is_dead.set()
        await copying
        assert len(set(seen)) == 2
        assert await stored(database) == [(of.key, 0, 0, 3)]


async def test_a_copy_that_is_refused_is_a_typed_error_without_values(postgres_url: str) -> None:
    async with migrated(postgres_url) as database:
        with pytest.raises(StatementError) as caught:
            await database.run(
                lambda s: copy_into(s, "passages", ["space"], [[copy.text("secret")]])
            )
    assert "secret" not in str(caught.value)
