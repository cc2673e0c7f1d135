"""`/search`: what it finds, for whom, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from serving import make_app, running
from sqlalchemy.orm import Session
from test_schemas import check_problem

from app.engines.base import Task
from app.errors import OverloadedError
from app.features.documents.opening import DocumentsPart
from app.features.documents.passages import NewPassage, PassageRepository
from app.features.documents.repository import DocumentRepository, NewDocument
from app.features.documents.vectors.base import Hit, Query
from app.models.registry import TaskKey
from app.runtime.runtime import Runtime
from app.services.embeddings import space_of

EMBEDDER = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
required = true
fake = { fail_on = "poison" }

[[models]]
name = "others"
task = "embedding"
engine = "fake"

[[models]]
name = "dummy"
engine = "fake"

[[models]]
name = "ranker"
task = "text-ranking"
engine = "fake"
fake = { fail_on = "unrankable" }
"""
ADMIN = "the-first-key-of-a-fleet"
TEXTS = {"cat": "A cat sat.", "rates": "Interest rates rose.", "sea": "The sea was calm."}


async def embed(client: AsyncClient, text: str, headers: Mapping[str, str] | None) -> Any:
    answer = await client.post("/embed", json={"texts": [text]}, headers=headers)
    return np.array(answer.json()["embeddings"][0], np.float32)


async def store(  # noqa: PLR0913  # each is of another test
    app: FastAPI,
    client: AsyncClient,
    documents: Mapping[str, str],
    *,
    collection: int = 0,
    metadata: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    embedder: str = "vectors",
) -> None:
    """Store documents as a job does, the second sentence of each as a passage of its own."""
    runtime: Runtime = app.state.runtime
    with runtime.registry.lease(embedder, TaskKey[Any](Task.EMBEDDING)) as lease:
        space = space_of(embedder, lease.version, lease.model.engine.vector_rules)
    vectors = {
        sentence: await embed(client, sentence, headers)
        for text in documents.values()
        for sentence in text.split("|")
    }

    def work(session: Session) -> None:
        repository = DocumentRepository(session)
        new = [
            NewDocument(id=name, text=text, metadata=dict((metadata or {}).get(name, {})))
            for name, text in documents.items()
        ]
        now = datetime.now(UTC)
        keys = repository.upsert_many(collection, new, request_id="r", now=now)
        sources = repository.texts(keys)
        made = []
        for key in keys:
            passages, start = [], 0
            for part in sources[key].text.split("|"):
                end = start + len(part)
                passages.append(NewPassage(start=start, end=end, vector=vectors[part]))
                start = end + 1
            made.append((sources[key], passages))
        PassageRepository(session).replace_many(made, space)

    await runtime.require_database().run(work)


def open_app(tmp_path: Path, **settings: Any) -> FastAPI:
    return make_app(tmp_path, EMBEDDER, **settings)


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    """A client of a service without documents."""
    async with running(open_app(tmp_path_factory.mktemp("empty"))) as client:
        yield client


async def search(client: AsyncClient, query: str, **fields: Any) -> list[dict[str, Any]]:
    answer = await client.post("/search", json={"query": query, **fields})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_a_text_is_found_first_by_itself(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        await store(app, client, TEXTS, metadata={"sea": {"lang": "en", "year": 1851}})
        results = await search(client, TEXTS["sea"])
    assert len(results) == 3
    assert results[0] == {
        "id": "sea",
        "score": pytest.approx(1, abs=1e-4),
        "text": "The sea was calm.",
        "metadata": {"lang": "en", "year": 1851},
        "passage": {"text": "The sea was calm.", "start": 0, "end": 17},
    }
    scores = [result["score"] for result in results]
    assert scores == sorted(scores, reverse=True)


async def test_a_result_names_the_passage_that_is_nearest(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        await store(app, client, {"two": "First of all.|And then."})
        (result,) = await search(client, "And then.")
    assert result["passage"] == {"text": "And then.", "start": 14, "end": 23}
    assert result["text"] == "First of all.|And then."


async def test_top_k_bounds_the_results(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        await store(app, client, {f"d{n}": f"Text {n}." for n in range(20)})
        assert len(await search(client, "Text 3.")) == 10
        (result,) = await search(client, "Text 3.", top_k=1)
        assert len(await search(client, "Text 3.", top_k=100.0)) == 20
    assert result["id"] == "d3"


async def test_a_service_without_documents_finds_nothing(client: AsyncClient) -> None:
    assert await search(client, "anything") == []


async def test_a_second_model_puts_what_was_found_in_its_own_order(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    texts = {f"d{n}": f"First {n}.|Text {n}." for n in range(30)}
    async with running(app) as client:
        await store(app, client, texts)
        found = await search(client, "Text 3.", top_k=20)
        ranked = await search(client, "Text 3.", top_k=5, rerank="ranker")
        all_ranked = await search(client, "Text 3.", top_k=30, rerank="ranker", candidates=30)
        body = {"query": "Text 3.", "documents": [hit["passage"]["text"] for hit in found]}
        order = (await client.post("/rerank", json=body)).json()["results"]
        metrics_text = (await client.get("/metrics")).text
    assert [hit["id"] for hit in ranked] == [found[one["index"]]["id"] for one in order[:5]]
    assert [hit["id"] for hit in ranked] != [hit["id"] for hit in found[:5]]
    scores = [hit["relevance_score"] for hit in ranked]
    assert scores == [one["relevance_score"] for one in order[:5]]
    same = next(hit for hit in found if hit["id"] == ranked[0]["id"])
    assert same == {k: v for k, v in ranked[0].items() if k != "relevance_score"}
    assert len(all_ranked) == 30
    assert 'mlapi_search_seconds_count{part="rerank"} 2.0' in metrics_text


async def test_a_search_that_can_t_be_ranked_says_so(tmp_path: Path, client: AsyncClient) -> None:
    assert await search(client, "x", rerank="ranker") == []
    for body in (
        {"query": "x", "candidates": 20},
        {"query": "x", "rerank": "ranker", "top_k": 20, "candidates": 19},
        {"query": "x", "rerank": "ranker", "candidates": 101},
        {"query": "x", "rerank": ""},
    ):
        check_problem(await client.post("/search", json=body), 422, "invalid_request")
    for name in ("nobody", "dummy"):
        answer = await client.post("/search", json={"query": "x", "rerank": name})
        check_problem(answer, 404, "model_not_found")
    app = open_app(tmp_path)
    async with running(app) as other:
        await store(app, other, {"a": "unrankable"})
        answer = await other.post("/search", json={"query": "x", "rerank": "ranker"})
    problem = check_problem(answer, 500, "inference_failed")
    assert problem["detail"] == "The engine failed on this input."


@pytest.fixture(scope="module")
async def described(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    """A client of a service with three documents that have metadata."""
    metadata: dict[str, Any] = {
        "a": {"lang": "en", "year": 2001, "draft": False, "day": "2001-02-03"},
        "b": {"lang": "en", "year": 2005, "draft": True, "day": "2005-12-01"},
        "c": {"lang": None},
    }
    app = open_app(tmp_path_factory.mktemp("described"))
    async with running(app) as client:
        await store(app, client, {name: f"Text {name}." for name in metadata}, metadata=metadata)
        yield client


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"a", "b", "c"}),
        ({"lang": "en"}, {"a", "b"}),
        ({"lang": None}, {"c"}),
        ({"draft": False}, {"a"}),
        ({"year": 2001.0}, {"a"}),
        ({"year": "2001"}, set()),
        ({"lang": {"in": ["de", None]}}, {"c"}),
        ({"year": {"gte": 2001, "lt": 2005}}, {"a"}),
        ({"year": {"gt": 2001}, "lang": "en"}, {"b"}),
        ({"day": {"gte": "2001-02", "lte": "2001-02-31"}}, {"a"}),
        ({"nothing": 1}, set()),
    ],
)
async def test_a_filter_chooses_by_metadata(
    described: AsyncClient, fields: dict[str, Any], expected: set[str]
) -> None:
    results = await search(described, "Text", filter=fields)
    assert {result["id"] for result in results} == expected


BAD_FILTERS: list[tuple[Any, list[str | int]]] = [
    ([], ["filter"]),
    ({"a": [1]}, ["filter", "a"]),
    ({"a": {}}, ["filter", "a", "range"]),
    ({"a": {"in": []}}, ["filter", "a", "one_of", "in"]),
    ({"a": {"in": "x"}}, ["filter", "a", "one_of", "in"]),
    ({"a": {"in": [1, {"b": 1}]}}, ["filter", "a", "one_of", "in", 1]),
    ({"a": {"in": ["x"] * 101}}, ["filter", "a", "one_of", "in"]),
    ({"a": {"in": ["x"], "gt": 1}}, ["filter", "a", "one_of", "gt", "[key]"]),
    ({"a": {"near": 1}}, ["filter", "a", "range", "near", "[key]"]),
    ({"a": {"gt": None}}, ["filter", "a", "range", "gt", "constrained-int"]),
    ({"a": {"gt": True}}, ["filter", "a", "range", "gt", "constrained-int"]),
    ({"a": {"gt": 1, "lt": "2"}}, ["filter", "a", "string_range", "gt"]),
    ({"a": 2**63}, ["filter", "a", "number", "constrained-int"]),
    ({"a": 1e300}, ["filter", "a", "number", "constrained-int"]),
    ({"a": "\0"}, ["filter", "a", "string"]),
    ({"a": "x" * 1001}, ["filter", "a", "string"]),
    ({"\0": 1}, ["filter", "\0", "[key]"]),
    ({f"f{n}": 1 for n in range(17)}, ["filter"]),
]


async def test_a_bad_filter_is_422_and_names_the_place(client: AsyncClient) -> None:
    for fields, place in BAD_FILTERS:
        answer = await client.post("/search", json={"query": "x", "filter": fields})
        problem = check_problem(answer, 422, "invalid_request")
        assert (fields, problem["errors"][0]["loc"]) == (fields, ["body", *place])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": "x" * 2001},
        {"query": 1},
        {"query": "x", "top_k": 0},
        {"query": "x", "top_k": 101},
        {"query": "x", "top_k": "5"},
        {"query": "x", "more": 1},
    ],
)
async def test_a_wrong_body_is_422(client: AsyncClient, body: dict[str, Any]) -> None:
    check_problem(await client.post("/search", json=body), 422, "invalid_request")


async def test_a_model_searches_only_what_it_has_embedded(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        await store(app, client, TEXTS)
        assert await search(client, "x", model_name="others") == []
        for name in ("nobody", "dummy"):
            answer = await client.post("/search", json={"query": "x", "model_name": name})
            check_problem(answer, 404, "model_not_found")


async def test_a_query_that_the_engine_fails_on_is_told_as_such(client: AsyncClient) -> None:
    answer = await client.post("/search", json={"query": "poison"})
    problem = check_problem(answer, 500, "inference_failed")
    assert problem["detail"] == "The engine failed on this input."


async def test_a_key_finds_its_own_documents_and_an_admin_all(tmp_path: Path) -> None:
    app = open_app(tmp_path, auth="required", admin_key=ADMIN)
    admin = {"Authorization": f"Bearer {ADMIN}"}
    async with running(app) as client:
        keys = []
        for name, scopes in (("one", ["documents"]), ("two", ["documents"]), ("no", ["embed"])):
            body = {"name": name, "scopes": scopes}
            keys.append((await client.post("/keys", json=body, headers=admin)).json())
        for key, text in zip(keys, TEXTS.values(), strict=True):
            new = {"same": text}
            await store(app, client, new, collection=int(key["id"]), headers=admin)

        async def found(secret: str) -> Any:
            headers = {"Authorization": f"Bearer {secret}"}
            return await client.post("/search", json={"query": "x"}, headers=headers)

        one = (await found(keys[0]["key"])).json()["results"]
        everyone = (await found(ADMIN)).json()["results"]
        check_problem(await found(keys[2]["key"]), 403, "forbidden")
        check_problem(await client.post("/search", json={"query": "x"}), 401, "unauthorized")
    assert [result["text"] for result in one] == [TEXTS["cat"]]
    assert {result["text"] for result in everyone} == set(TEXTS.values())


class SilentIndex:
    """An index that never answers, or refuses."""

    def __init__(self, *, is_full: bool = False) -> None:
        self._is_full = is_full

    async def search(self, query: Query) -> list[Hit]:
        if self._is_full:
            raise OverloadedError(retry_after_s=1)
        await asyncio.Event().wait()
        return []


async def test_a_search_that_takes_too_long_is_504(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        app.state.runtime.part(DocumentsPart).index = SilentIndex()
        headers = {"X-Request-Timeout-Ms": "1000"}
        answer = await client.post("/search", json={"query": "x"}, headers=headers)
        check_problem(answer, 504, "deadline_exceeded")
        refused = (await client.get("/metrics")).text
    assert 'mlapi_refused_total{model="vectors",reason="deadline"} 1.0' in refused


async def test_too_many_searches_are_503_with_retry_after(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        app.state.runtime.part(DocumentsPart).index = SilentIndex(is_full=True)
        answer = await client.post("/search", json={"query": "x"})
        check_problem(answer, 503, "overloaded")
        refused = (await client.get("/metrics")).text
    assert answer.headers["Retry-After"] == "1"
    assert 'mlapi_refused_total{model="vectors",reason="overloaded"} 1.0' in refused


async def test_without_its_database_a_search_is_503(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        await app.state.runtime.require_database().close()
        answer = await client.post("/search", json={"query": "x"})
    check_problem(answer, 503, "database_unavailable")


async def test_times_of_both_parts_and_memory_are_measured(tmp_path: Path) -> None:
    app = open_app(tmp_path)
    async with running(app) as client:
        await store(app, client, TEXTS)
        await search(client, "x")
        metrics_text = (await client.get("/metrics")).text
    assert 'mlapi_search_seconds_count{part="embed"} 1.0' in metrics_text
    assert 'mlapi_search_seconds_count{part="find"} 1.0' in metrics_text
    assert f"mlapi_search_index_bytes {3 * (384 * 4 + 24)}" in metrics_text.replace(".0", "")
