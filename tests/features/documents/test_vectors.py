"""Search, as both indexes do it: exact in memory over SQLite, and pgvector on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import migrated
from passages import NOW, SPACE, remove, store, toward
from sqlalchemy.orm import Session

from app.db.session import Database
from app.engines.base import FloatArray
from app.engines.vector_rules import Similarity
from app.features.documents.metrics import SearchMetrics
from app.features.documents.repository import DocumentRepository, NewDocument
from app.features.documents.vectors.base import Hit, Query, VectorIndex
from app.features.documents.vectors.filters import Filter, OneOf, Range
from app.features.documents.vectors.opening import open_index


@pytest.fixture(params=["sqlite", "postgresql", "hnsw"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: SQLite, PostgreSQL, and one that takes its index of vectors where it can.

    By itself PostgreSQL reads the whole of a small table.
    """
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url + (USE_INDEX if request.param == "hnsw" else "")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with migrated(database_url, timeout_s=20) as database:
        yield database


@pytest.fixture
async def index(database: Database) -> AsyncIterator[VectorIndex]:
    async with AsyncExitStack() as stack:
        yield open_index(stack, database, metrics=SearchMetrics())


USE_INDEX = "?options=-c%20enable_seqscan%3Doff%20-c%20enable_sort%3Doff"
AHEAD = toward(0)
ASKED = Query(vector=AHEAD, space=SPACE)


def ids(hits: Sequence[Hit]) -> list[str]:
    return [hit.id for hit in hits]


async def found(index: VectorIndex, **asked: Any) -> list[str]:
    return ids(await index.search(replace(ASKED, **asked)))


async def test_the_nearest_come_first_with_their_cosine(
    database: Database, index: VectorIndex
) -> None:
    await store(database, {"far": [80], "near": [10], "behind": [180], "between": [40]})
    hits = await index.search(ASKED)
    assert ids(hits) == ["near", "between", "far", "behind"]
    cosines = np.cos(np.radians([10, 40, 80, 180]))
    assert [hit.score for hit in hits] == pytest.approx(cosines, abs=1e-5)


PLACES = {"near": (10, 0.2), "long": (30, 6.0), "equal": (0, 2.0), "behind": (180, 1.0)}
QUERY = 2 * toward(0)


@pytest.mark.parametrize("more", [{}, {"collection": 3}, {"filter": (OneOf("lang", ("en",)),)}])
@pytest.mark.parametrize(
    ("similarity", "score"),
    [
        (Similarity.DOT, lambda vector: vector @ QUERY),
        (Similarity.EUCLIDEAN, lambda vector: -np.sqrt(((vector - QUERY) ** 2).sum())),
        (Similarity.MANHATTAN, lambda vector: -np.abs(vector - QUERY).sum()),
    ],
)
async def test_vectors_are_compared_by_the_similarity_that_the_model_declares(
    database: Database,
    index: VectorIndex,
    similarity: Similarity,
    score: Callable[[FloatArray], float],
    more: dict[str, Any],
) -> None:
    angles = {name: [angle] for name, (angle, _) in PLACES.items()}
    lengths = {name: length for name, (_, length) in PLACES.items()}
    await store(
        database,
        angles,
        collection=3,
        metadata=lambda _: {"lang": "en"},
        length=lengths.__getitem__,
    )
    hits = await index.search(replace(ASKED, vector=QUERY, similarity=similarity, **more))
    expected = {name: score(toward(angle) * length) for name, (angle, length) in PLACES.items()}
    assert ids(hits) == sorted(expected, key=lambda name: -expected[name])
    found = {hit.id: hit.score for hit in hits}
    assert found == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}


@pytest.mark.parametrize("similarity", [Similarity.EUCLIDEAN, Similarity.MANHATTAN])
async def test_the_distance_of_the_same_vector_is_0_without_a_sign(
    database: Database, index: VectorIndex, similarity: Similarity
) -> None:
    await store(database, {"same": [0]}, collection=3)
    (hit,) = await index.search(replace(ASKED, vector=toward(0), similarity=similarity))
    assert str(hit.score) == "0.0"


async def test_a_hit_has_its_document_and_the_place_of_its_best_passage(
    database: Database, index: VectorIndex
) -> None:
    meta = {"lang": "en", "deep": {"a": [1, None, "ü"]}}
    await store(database, {"a": [50, 20, 70]}, collection=7, metadata=lambda _: meta)
    (hit,) = await index.search(ASKED)
    assert (hit.id, hit.collection, hit.text, hit.metadata) == ("a", 7, "text of a", meta)
    assert (hit.start, hit.end) == (1, 2)
    assert hit.document_key > 0


async def test_an_empty_index_finds_nothing(index: VectorIndex) -> None:
    assert await found(index) == []


async def test_a_document_counts_once_however_many_passages_are_near(
    database: Database, index: VectorIndex
) -> None:
    many = {f"long{n}": [n * 0.1 + p * 0.001 for p in range(60)] for n in range(3)}
    await store(database, many | {f"short{n}": [60 + n] for n in range(9)})
    assert await found(index, limit=5) == ["long0", "long1", "long2", "short0", "short1"]


@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_there_are_as_many_hits_as_asked_for(
    database: Database, index: VectorIndex, limit: int
) -> None:
    await store(database, {f"d{n:03}": [n * 0.5] for n in range(150)})
    assert await found(index, limit=limit) == [f"d{n:03}" for n in range(limit)]


async def test_only_one_space_is_searched(database: Database, index: VectorIndex) -> None:
    await store(database, {"a": [10], "b": [20]})
    await store(database, {"b": [5], "c": [0]}, space="minilm@2")
    assert await found(index) == ["a", "b"]
    assert await found(index, space="minilm@2") == ["c", "b"]
    assert await found(index, space="nobody@1") == []


async def test_only_one_collection_is_searched_unless_all_are_asked_for(
    database: Database, index: VectorIndex
) -> None:
    await store(database, {"mine": [30], "same": [40]}, collection=1)
    await store(database, {"theirs": [10], "same": [20]}, collection=2)
    await store(database, {"nobody's": [50]})
    assert await found(index, collection=1) == ["mine", "same"]
    assert await found(index, collection=0) == ["nobody's"]
    assert await found(index, collection=3) == []
    assert await found(index) == ["theirs", "same", "mine", "same", "nobody's"]


async def test_vectors_of_another_length_are_searched_too(
    database: Database, index: VectorIndex
) -> None:
    await store(database, {"a": [30], "b": [20]}, dimensions=3)
    await store(database, {"c": [10]})
    assert await found(index, vector=toward(0, 3)) == ["b", "a"]
    assert await found(index) == ["c"]


async def test_what_is_stored_changed_and_deleted_is_seen_by_the_next_search(
    database: Database, index: VectorIndex
) -> None:
    await store(database, {"a": [10], "b": [20]})
    assert await found(index) == ["a", "b"]
    await store(database, {"c": [15], "a": [30]})
    assert await found(index) == ["c", "b", "a"]
    await remove(database, "b")
    assert await found(index) == ["c", "a"]
    await store(database, {"b": [1]})
    assert await found(index) == ["b", "c", "a"]


async def test_a_changed_text_is_not_found_until_it_is_embedded(
    database: Database, index: VectorIndex
) -> None:
    await store(database, {"a": [10], "b": [20]})
    assert await found(index) == ["a", "b"]

    def change(session: Session) -> None:
        changed = [NewDocument(id="a", text="new")]
        DocumentRepository(session).upsert_many(0, changed, request_id="r", now=NOW)

    await database.run(change)
    assert await found(index) == ["b"]


async def test_documents_of_one_score_have_an_order(database: Database, index: VectorIndex) -> None:
    await store(database, {f"d{n}": [5] for n in (3, 1, 2)})
    once = await found(index)
    assert sorted(once) == ["d1", "d2", "d3"]
    assert await found(index) == once


async def test_many_searches_at_once_all_find_what_there_is(
    database: Database, index: VectorIndex
) -> None:
    await store(database, {f"d{n}": [n] for n in range(20)})
    expected = [f"d{n}" for n in range(10)]
    assert await asyncio.gather(*(found(index) for _ in range(20))) == [expected] * 20


YES, NO = True, False
VALUES: dict[str, Any] = {
    "one": 1,
    "one_and_a_half": 1.5,
    "one_as_float": 1.0,
    "two": 2,
    "text_one": "1",
    "text_ten": "10",
    "text_two": "2",
    "empty": "",
    "upper": "B",
    "lower": "a",
    "accent": "é",
    "beyond": "😀",
    "yes": True,
    "no": False,
    "null": None,
    "list": [1],
    "object": {"v": 1},
    "negative": -3,
    "huge": 10**30,
    "tiny": 1e-300,
}


def one_of(*values: Any, field: str = "v") -> Filter:
    return (OneOf(field, values),)


def within(field: str = "v", **bounds: Any) -> Filter:
    return (Range(field, bounds),)  # type: ignore[arg-type]  # names of bounds


MATCHES: list[tuple[Filter, set[str]]] = [
    ((), set(VALUES) | {"lacking"}),
    (one_of(1), {"one", "one_as_float"}),
    (one_of(1.0), {"one", "one_as_float"}),
    (one_of("1"), {"text_one"}),
    (one_of(YES), {"yes"}),
    (one_of(NO), {"no"}),
    (one_of(None), {"null"}),
    (one_of(""), {"empty"}),
    (one_of("é", "😀", 2, None), {"accent", "beyond", "two", "null"}),
    (one_of(YES, "nothing"), {"yes"}),
    (one_of(3), set()),
    (one_of(1, field="w"), set()),
    (within(gte=1), {"one", "one_as_float", "one_and_a_half", "two", "huge"}),
    (within(gt=1), {"one_and_a_half", "two", "huge"}),
    (within(lt=1), {"negative", "tiny"}),
    (within(lte=1.0), {"one", "one_as_float", "negative", "tiny"}),
    (within(gt=1, lt=2), {"one_and_a_half"}),
    (within(gte=2, lt=1), set()),
    (within(gte="1", lt="2"), {"text_one", "text_ten"}),
    (within(gte="B"), {"upper", "lower", "accent", "beyond"}),
    (within(gt="B", lt="z"), {"lower"}),
    (within(gt="é"), {"beyond"}),
    (within(lte=""), {"empty"}),
    ((*within(gte=1), *one_of(1, 1.5)), {"one", "one_as_float", "one_and_a_half"}),
    ((*one_of("x", field="kind"), *one_of(2)), {"two"}),
]


@pytest.fixture
async def of_all_types(database: Database) -> None:
    def metadata(name: str) -> dict[str, Any]:
        return {"v": VALUES[name], "kind": "x"} if name in VALUES else {"kind": "x"}

    await store(database, {name: [1] for name in (*VALUES, "lacking")}, metadata=metadata)


@pytest.mark.usefixtures("of_all_types")
async def test_filters_compare_values_of_one_type_alike_on_both_databases(
    index: VectorIndex,
) -> None:
    for asked, expected in MATCHES:
        names = await found(index, filter=asked, limit=100)
        assert (asked, sorted(names)) == (asked, sorted(expected))


@pytest.mark.parametrize(
    "field", ["plain", "with space", 'a"b', "a'b", "a.b", "$", "$.a", "0", "é", "a\\b", "%(x)s", ""]
)
async def test_a_field_may_have_any_name(
    database: Database, index: VectorIndex, field: str
) -> None:
    await store(database, {"a": [1], "b": [2]}, metadata=lambda name: {field: name})
    assert await found(index, filter=one_of("b", field=field)) == ["b"]
    assert await found(index, filter=within(field, gt="a")) == ["b"]


@pytest.mark.parametrize("text", ["' OR 1=1 --", "%s", ":v", "%(v)s", '"', "\\", "$1", "a\nb"])
async def test_a_value_is_never_taken_for_sql(
    database: Database, index: VectorIndex, text: str
) -> None:
    await store(database, {"a": [1], "b": [2]}, metadata=lambda n: {"v": text if n == "a" else "b"})
    assert await found(index, filter=one_of(text)) == ["a"]
    assert await found(index, filter=within(gte=text, lte=text)) == ["a"]


async def test_there_are_enough_hits_however_few_documents_a_filter_lets_through(
    database: Database, index: VectorIndex
) -> None:
    far = {f"far{n}": [170.0 + n] for n in range(9)}
    near = {f"d{n}": [10 + n * 0.02] for n in range(1_500)}
    await store(database, near | far, collection=1, metadata=lambda name: {"far": name in far})
    await store(database, {"nearer": [0], "nearest": [1]}, collection=2)
    asked = one_of(YES, field="far")
    for collection in (1, None):
        assert await found(index, filter=asked, collection=collection, limit=9) == list(far)
        assert await found(index, filter=asked, collection=collection, limit=5) == list(far)[:5]
    asked = one_of(NO, field="far")
    for names in (
        await found(index, filter=asked, collection=1, limit=100),
        await found(index, collection=1, limit=100),
    ):
        assert len(names) == 100
        assert len(set(names) & set(list(near)[:100])) >= 95  # HNSW may miss some
