"""`/documents`: stored all or none, found by their owner, on both databases."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import opened, says
from fastapi import FastAPI
from httpx2 import AsyncClient, Response
from serving import FAKE, make_app, running, serving
from sqlalchemy.orm import Session
from test_schemas import check_problem

from app.db.schema import upgrade
from app.features.documents.passages import NewPassage, PassageRepository
from app.features.documents.repository import DocumentRepository
from app.features.documents.schemas import DocumentInfo, DocumentList
from app.runtime.runtime import Runtime

ADMIN = "an-admin-key-of-the-fleet"
TEXT = "é 🙂 \u2028 a text"
METADATA = {"year": 2026, "tags": ["a", None, True, 1.5], "deep": {"b": {"c": [{}]}}, "": ""}


@asynccontextmanager
async def documents(
    tmp_path: Path, database_url: str, **settings: Any
) -> AsyncIterator[tuple[FastAPI, AsyncClient]]:
    async with opened(database_url) as database:
        await asyncio.to_thread(upgrade, database)
    app = make_app(tmp_path, FAKE, database_url=database_url, **settings)
    async with running(app) as client:
        yield app, client


async def add(client: AsyncClient, *asked: dict[str, Any], **given: Any) -> list[str]:
    answer = await client.post("/documents", json={"documents": asked}, **given)
    assert answer.status_code == 201, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids


def refused(answer: Response, *where: str | int) -> str:
    """Expect one 422 about a field, and return what it says; nothing of the input is in it."""
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    (error,) = problem["errors"]
    assert error["loc"] == list(where)
    assert "secret" not in answer.text
    message: str = error["msg"]
    return message


async def test_a_document_comes_back_as_it_was_sent(tmp_path: Path, database_url: str) -> None:
    async with documents(tmp_path, database_url) as (_, client):
        sent = {"id": "a:b.c_d-1", "text": TEXT, "metadata": METADATA}
        assert await add(client, sent) == ["a:b.c_d-1"]
        answer = await client.get("/documents/a:b.c_d-1")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    found = answer.json()
    assert set(found) == {"id", "text", "metadata", "created_at", "updated_at", "searchable"}
    assert {name: found[name] for name in sent} == sent
    assert found["searchable"] is False
    assert found["created_at"] == found["updated_at"]
    assert found["created_at"].endswith("Z")
    DocumentInfo.model_validate_json(answer.text)


async def test_ids_come_in_order_and_missing_ones_are_made(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        ids = await add(client, {"text": "1"}, {"text": "2", "id": "z"}, {"text": "3", "id": None})
        assert ids[1] == "z"
        assert len(set(ids)) == 3
        for number, document_id in enumerate(ids, start=1):
            found = (await client.get(f"/documents/{document_id}")).json()
            assert (found["text"], found["metadata"]) == (str(number), {})


async def test_a_thousand_documents_are_stored_in_a_call_and_no_more(
    tmp_path: Path, database_url: str
) -> None:
    async with documents(tmp_path, database_url) as (_, client):
        many = [{"id": f"d{n}", "text": f"text {n}"} for n in range(1_000)]
        assert await add(client, *many) == [document["id"] for document in many]
        more = {"documents": [*many, {"text": "x"}]}
        refused(await client.post("/documents", json=more), "body", "documents")


async def test_a_new_text_makes_a_document_unsearchable_and_the_same_does_not(
    tmp_path: Path, database_url: str
) -> None:
    def embed(session: Session) -> list[bool]:
        (source,) = DocumentRepository(session).texts([1]).values()
        passage = NewPassage(start=0, end=1, vector=np.ones(384, dtype=np.float32))
        return PassageRepository(session).replace_many([(source, [passage])], "fake@1")

    async with documents(tmp_path, database_url) as (app, client):
        runtime: Runtime = app.state.runtime

        async def seen() -> tuple[Any, ...]:
            found = (await client.get("/documents/a")).json()
            return found["text"], found["metadata"], found["searchable"]

        await add(client, {"id": "a", "text": "first"})
        first = (await client.get("/documents/a")).json()
        assert await runtime.require_database().run(embed) == [True]
        assert await seen() == ("first", {}, True)
        await add(client, {"id": "a", "text": "first", "metadata": {"n": 1}})
        assert await seen() == ("first", {"n": 1}, True)
        await add(client, {"id": "a", "text": "second"})
        assert await seen() == ("second", {}, False)
        last = (await client.get("/documents/a")).json()
    assert last["created_at"] == first["created_at"]
    assert last["updated_at"] > first["updated_at"]


async def test_pages_follow_each_other_newest_first(tmp_path: Path, database_url: str) -> None:
    async with documents(tmp_path, database_url) as (_, client):
        assert (await client.get("/documents")).json() == {"documents": [], "next": None}
        await add(client, *({"id": f"{n:02}", "text": f"text {n}"} for n in range(25)))
        first = await client.get("/documents")
        assert first.headers["Cache-Control"] == "no-store"
        page = DocumentList.model_validate_json(first.text)
        assert [d.id for d in page.documents] == [f"{n:02}" for n in range(24, 4, -1)]
        assert page.documents[0].text == "text 24"
        rest = (await client.get("/documents", params={"cursor": page.next, "limit": 5})).json()
        assert [d["id"] for d in rest["documents"]] == ["04", "03", "02", "01", "00"]
        assert rest["next"] is None


@pytest.mark.parametrize(
    "asked", [{"cursor": ""}, {"cursor": "x"}, {"cursor": "0"}, {"cursor": "9" * 19}]
)
async def test_another_text_is_no_cursor(client: AsyncClient, asked: dict[str, str]) -> None:
    refused(await client.get("/documents", params=asked), "query", "cursor")


@pytest.mark.parametrize("limit", [0, 101])
async def test_a_page_has_one_to_a_hundred_documents(client: AsyncClient, limit: int) -> None:
    refused(await client.get("/documents", params={"limit": limit}), "query", "limit")


async def test_a_document_that_is_deleted_is_gone(tmp_path: Path, database_url: str) -> None:
    async with documents(tmp_path, database_url) as (_, client):
        await add(client, {"id": "a", "text": "x"})
        deleted = await client.delete("/documents/a")
        assert (deleted.status_code, deleted.content) == (204, b"")
        for answer in (await client.get("/documents/a"), await client.delete("/documents/a")):
            assert answer.status_code == 404
            assert answer.json()["code"] == "document_not_found"


BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"id": ""}, ("id",)),
    ({"id": "x" * 129}, ("id",)),
    ({"id": "secret/x"}, ("id",)),
    ({"id": "x\n"}, ("id",)),
    ({"id": "é"}, ("id",)),
    ({"id": "."}, ("id",)),
    ({"id": ".."}, ("id",)),
    ({"id": 7}, ("id",)),
    ({"text": ""}, ("text",)),
    ({"text": "x" * 100_001}, ("text",)),
    ({"text": "secret\0"}, ("text",)),
    ({"text": None}, ("text",)),
    ({"metadata": None}, ("metadata",)),
    ({"metadata": ["secret"]}, ("metadata",)),
    ({"metadata": {"a": "secret\0"}}, ("metadata",)),
    ({"metadata": {"a": [{"secret\0": 1}]}}, ("metadata",)),
    ({"metadata": {"a": 2**64 - 1}}, ("metadata",)),
    ({"metadata": {"a": -(2**63) - 1}}, ("metadata",)),
    ({"metadata": {"a": {"b": {"c": {"d": {"e": {}}}}}}}, ("metadata",)),
    ({"metadata": {"a": [[[[[]]]]]}}, ("metadata",)),
    ({"metadata": {"a": "x" * 16_384}}, ("metadata",)),
    ({"metadata": {"a": "é" * 8_192}}, ("metadata",)),
    ({"unknown": "secret"}, ("unknown",)),
]


@pytest.mark.parametrize(("changes", "where"), BAD)
async def test_what_cannot_be_stored_is_422_and_says_where(
    client: AsyncClient, changes: dict[str, Any], where: tuple[str, ...]
) -> None:
    asked = {"documents": [{"text": "good"}, {"text": "x", **changes}]}
    refused(await client.post("/documents", json=asked), "body", "documents", 1, *where)
    assert (await client.get("/documents")).json()["documents"] == [], "all or none"


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"1" + b"0" * 400])
async def test_a_number_that_no_database_holds_is_422(client: AsyncClient, number: bytes) -> None:
    body = b'{"documents":[{"text":"x","metadata":{"a":[%s]}}]}' % number
    headers = {"Content-Type": "application/json"}
    answer = await client.post("/documents", content=body, headers=headers)
    refused(answer, "body", "documents", 0, "metadata")


@pytest.mark.parametrize("number", [1e20, 1.5e300, -1e-300, 5e-324, 2**63 - 1, -(2**63), 0.1])
async def test_a_number_comes_back_as_large_as_it_was_and_can_be_sent_again(
    tmp_path: Path, database_url: str, number: float
) -> None:
    async with documents(tmp_path, database_url) as (_, client):
        await add(client, {"id": "a", "text": "x", "metadata": {"n": number}})
        for _ in range(2):
            found = (await client.get("/documents/a")).json()
            assert math.isclose(found["metadata"]["n"], number, rel_tol=1e-15)
            await add(client, {"id": "a", "text": "x", "metadata": found["metadata"]})


async def test_bounds_are_included(tmp_path: Path, database_url: str) -> None:
    # 16,384 bytes with `{"a":""}` around it.
    metadata = {"a": "x" * (16_384 - len('{"a":""}'))}
    async with documents(tmp_path, database_url) as (_, client):
        await add(client, {"id": "x" * 128, "text": "🙂" * 100_000, "metadata": metadata})
        found = (await client.get(f"/documents/{'x' * 128}")).json()
    assert found["text"] == "🙂" * 100_000
    assert found["metadata"] == metadata


async def test_the_same_id_twice_in_a_call_is_422(client: AsyncClient) -> None:
    asked = {"documents": [{"id": "a", "text": "1"}, {"text": "2"}, {"id": "a", "text": "3"}]}
    message = refused(await client.post("/documents", json=asked), "body", "documents")
    assert "same id" in message
    refused(await client.post("/documents", json={"documents": []}), "body", "documents")


@pytest.mark.parametrize("path", ["a%00b", "a%0A", "x" * 129, "é", "a%20b"])
async def test_an_id_that_none_can_have_is_422(client: AsyncClient, path: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await client.request(method, f"/documents/{path}")
        refused(answer, "path", "document_id")


async def test_a_lone_surrogate_is_no_json(client: AsyncClient) -> None:
    answer = await client.post(
        "/documents",
        content=rb'{"documents":[{"text":"\ud800"}]}',
        headers={"Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_json")


async def test_the_request_id_of_the_call_is_stored(tmp_path: Path) -> None:
    app = make_app(tmp_path)
    async with running(app) as client:
        await add(client, {"text": "x"}, headers={"X-Request-ID": "my-request"})
        runtime: Runtime = app.state.runtime
        assert (
            await runtime.require_database().read(says("SELECT request_id FROM documents"))
            == "my-request"
        )


async def test_a_key_sees_its_own_documents_and_an_admin_all(
    tmp_path: Path, database_url: str
) -> None:
    guarded = {"auth": "required", "admin_key": ADMIN, "default_limit": "1000/minute"}
    async with documents(tmp_path, database_url, **guarded) as (_, client):
        admin = {"Authorization": f"Bearer {ADMIN}"}

        async def make(*scopes: str) -> dict[str, str]:
            wanted = {"name": "x", "scopes": scopes}
            key = (await client.post("/keys", json=wanted, headers=admin)).json()["key"]
            return {"Authorization": f"Bearer {key}"}

        one, two, other = await make("documents"), await make("documents"), await make("predict")
        await add(client, {"id": "a", "text": "of one"}, {"id": "b", "text": "b"}, headers=one)
        await add(client, {"id": "a", "text": "of two"}, headers=two)
        await add(client, {"id": "c", "text": "of the admin"}, headers=admin)

        async def text(document_id: str, headers: dict[str, str]) -> str | None:
            answer = await client.get(f"/documents/{document_id}", headers=headers)
            message: str | None = answer.json().get("text")
            return message

        async def listed(headers: dict[str, str]) -> list[str]:
            answer = await client.get("/documents", headers=headers)
            return [document["text"] for document in answer.json()["documents"]]

        assert [await text("a", who) for who in (one, two)] == ["of one", "of two"]
        assert [await text(name, two) for name in ("b", "c")] == [None, None]
        assert [await text(name, admin) for name in ("b", "c")] == ["b", "of the admin"]
        assert await listed(one) == ["b", "of one"]
        assert await listed(admin) == ["of the admin", "of two", "b", "of one"]
        assert (await client.delete("/documents/b", headers=two)).status_code == 404
        assert (await client.delete("/documents/b", headers=admin)).status_code == 204
        for headers, status in ((other, 403), ({}, 401)):
            assert (await client.get("/documents", headers=headers)).status_code == status


async def test_without_the_database_it_is_503_with_retry_after(tmp_path: Path) -> None:
    nowhere = "postgresql://test:secret@127.0.0.1:1/test"
    async with serving(tmp_path, database_url=nowhere) as client:
        sent = {"documents": [{"text": "x"}]}
        for answer in (
            await client.post("/documents", json=sent),
            await client.get("/documents"),
            await client.get("/documents/a"),
            await client.delete("/documents/a"),
        ):
            assert answer.status_code == 503
            assert answer.json()["code"] == "database_unavailable"
            assert answer.headers["Retry-After"] == "2"
            assert "secret" not in answer.text


async def test_a_wrong_method_is_405_and_allow_names_those_of_all_routes(tmp_path: Path) -> None:
    async with serving(tmp_path) as client:
        answer = await client.put("/documents")
    check_problem(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"
