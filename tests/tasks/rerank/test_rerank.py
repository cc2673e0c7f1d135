"""`/rerank`, and the same in the dialects of Jina's and Cohere's clients."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import make_app, running, serving
from test_schemas import check_problem

pytestmark = pytest.mark.core

MODELS = """
[[models]]
name = "ranker"
task = "text-ranking"
engine = "fake"
limits = { max_tokens = 24 }
fake = { fail_on = "poison" }

[[models]]
name = "dummy"
engine = "fake"
"""
POLL_S = 0.1  # the limit is 100 requests a minute
ADMIN = "the-first-key-of-a-fleet"
LOGGED: dict[str, Any] = {"prediction_input": "text"}
QUERY = "a red planet"
TEXTS = ["Venus", "Mars", "the sea", ""]


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS) as client:
        yield client


async def ask(client: AsyncClient, path: str = "/rerank", **body: Any) -> Any:
    return await client.post(path, json={"query": QUERY, **body})


async def test_documents_come_back_best_first_by_their_own_scores(client: AsyncClient) -> None:
    answer = (await ask(client, documents=TEXTS)).json()
    assert (answer["model"], answer["truncated"]) == ("ranker", [])
    scores = {result["index"]: result["relevance_score"] for result in answer["results"]}
    assert sorted(scores) == [0, 1, 2, 3]
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert "document" not in answer["results"][0]
    for index, text in enumerate(TEXTS):
        alone = (await ask(client, documents=[text])).json()
        assert alone["results"][0]["relevance_score"] == scores[index]


async def test_equal_documents_stay_in_their_order(client: AsyncClient) -> None:
    answer = (await ask(client, documents=["Mars", "Mars", "Mars"])).json()
    assert [result["index"] for result in answer["results"]] == [0, 1, 2]


async def test_a_request_chooses_how_many_and_whether_their_texts_come_too(
    client: AsyncClient,
) -> None:
    every = (await ask(client, documents=TEXTS)).json()["results"]
    some = (await ask(client, documents=TEXTS, top_n=2, return_documents=True)).json()["results"]
    assert [{k: r[k] for k in ("index", "relevance_score")} for r in some] == every[:2]
    assert [r["document"] for r in some] == [{"text": TEXTS[r["index"]]} for r in some]
    assert len((await ask(client, documents=TEXTS, top_n=99)).json()["results"]) == len(TEXTS)


async def test_other_names_and_objects_mean_the_same(client: AsyncClient) -> None:
    expected = (await ask(client, documents=TEXTS)).json()
    as_objects = [{"text": text} for text in TEXTS]
    for body in (
        {"texts": TEXTS},
        {"documents": as_objects},
        {"documents": TEXTS, "model": "ranker"},
        {"documents": TEXTS, "model_name": "ranker"},
    ):
        assert (await ask(client, **body)).json() == expected


async def test_a_pair_beyond_the_window_is_cut_and_named(client: AsyncClient) -> None:
    answer = (await ask(client, documents=["Mars", "x" * 5_000])).json()
    assert answer["truncated"] == [1]


async def test_jina_s_clients_get_jina_s_form(client: AsyncClient) -> None:
    own = (await ask(client, documents=TEXTS, top_n=2)).json()["results"]
    answer = (await ask(client, "/v1/rerank", model="ranker", documents=TEXTS, top_n=2)).json()
    assert set(answer) == {"model", "object", "usage", "results"}
    assert [r["relevance_score"] for r in answer["results"]] == [r["relevance_score"] for r in own]
    assert [r["document"]["text"] for r in answer["results"]] == [TEXTS[r["index"]] for r in own]
    assert answer["usage"]["total_tokens"] == sum(len(QUERY) + 1 + len(text) for text in TEXTS)
    unknown = await ask(client, "/v1/rerank", model="none", documents=TEXTS)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_vllm_s_clients_get_a_score_for_each_pair(client: AsyncClient) -> None:
    async def score(**body: Any) -> Any:
        return (await client.post("/v1/score", json=body)).json()

    own = (await ask(client, documents=TEXTS[:3])).json()["results"]
    answer = await score(model="ranker", text_1=QUERY, text_2=TEXTS[:3])
    expected = {one["index"]: one["relevance_score"] for one in own}
    assert {one["index"]: one["score"] for one in answer["data"]} == expected
    assert [one["index"] for one in answer["data"]] == [0, 1, 2]
    same = await score(text_1=[QUERY] * 3, text_2=TEXTS[:3])
    assert (same["data"], same["usage"], same["model"]) == (
        *(answer["data"], answer["usage"]),
        "ranker",
    )
    assert (await score(text_1=[QUERY, QUERY], text_2=TEXTS[:3]))["error"]["code"] == (
        "invalid_request"
    )
    failed = await score(text_1="a", text_2=["b", "poison"])
    assert "text_2[1]" in failed["error"]["message"]


async def test_cohere_s_clients_get_cohere_s_form(client: AsyncClient) -> None:
    own = (await ask(client, documents=TEXTS)).json()["results"]
    body = {"model": "ranker", "documents": TEXTS, "max_tokens_per_doc": 4096}
    answer = await ask(client, "/v2/rerank", **body)
    assert answer.json()["results"] == own
    assert answer.json()["id"] == answer.headers["x-request-id"]
    assert answer.json()["meta"] == {"api_version": {"version": "2"}}
    short = await ask(client, "/v2/rerank", **body | {"max_tokens_per_doc": 10})
    check_problem(short, 400, "unsupported_field")
    check_problem(
        await ask(client, "/v2/rerank", model="none", documents=TEXTS), 404, "model_not_found"
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"documents": []},
        {"documents": TEXTS, "texts": TEXTS},
        {"documents": [1]},
        {"documents": [{"title": "x"}]},
        {"documents": TEXTS, "top_n": 0},
        {"documents": ["x"] * 1001},
        {"documents": TEXTS, "model": "ranker", "model_name": "ranker"},
        {"documents": TEXTS, "query": ""},
        {"documents": TEXTS, "query": "x" * 2001},
    ],
)
async def test_a_wrong_body_is_422(client: AsyncClient, body: dict[str, Any]) -> None:
    refused = await client.post("/rerank", json={"query": QUERY, **body})
    check_problem(refused, 422, "invalid_request")


async def test_a_document_that_fails_is_named_and_a_classifier_ranks_nothing(
    client: AsyncClient,
) -> None:
    failed = check_problem(await ask(client, documents=["Mars", "poison"]), 500, "inference_failed")
    assert failed["detail"] == "The engine failed on documents[1]."
    named = check_problem(await ask(client, texts=["poison"]), 500, "inference_failed")
    assert named["detail"] == "The engine failed on texts[0]."
    other = await ask(client, documents=TEXTS, model_name="dummy")
    check_problem(other, 404, "model_not_found")


async def test_a_request_has_one_entry_in_the_log_and_costs_a_token_for_each_document(
    tmp_path: Path,
) -> None:
    app = make_app(tmp_path, MODELS, **LOGGED, auth="required", admin_key=ADMIN)
    admin = {"Authorization": f"Bearer {ADMIN}"}
    async with running(app) as client:
        made = await client.post(
            "/keys", json={"name": "k", "scopes": ["predict"], "tokens_per_day": 5}, headers=admin
        )
        own = {"Authorization": f"Bearer {made.json()['key']}"}
        body = {"query": QUERY, "documents": TEXTS}
        best = (await client.post("/rerank", json=body, headers=own)).json()["results"][0]
        assert (await client.post("/rerank", json=body, headers=own)).status_code == 200
        refused = await client.post("/rerank", json=body, headers=own)
        check_problem(refused, 429, "rate_limited")
        rows: list[dict[str, Any]] = []
        while len(rows) < 2:  # they are written a moment later
            await asyncio.sleep(POLL_S)
            rows = (await client.get("/predictions", headers=admin)).json()["predictions"]
    row = rows[-1]
    assert (row["task"], row["model"]) == ("text-ranking", "ranker")
    assert row["score"] == pytest.approx(best["relevance_score"])
    assert row["input"] == "\n".join((QUERY, *TEXTS))


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/v1/score"])
async def test_dialects_say_by_names_of_their_own_whether_a_pair_may_be_cut(
    client: AsyncClient, path: str
) -> None:
    async def rank(*texts: str, **fields: Any) -> Any:
        pairs = {"text_1": QUERY, "text_2": texts} if path == "/v1/score" else None
        body = pairs or {"query": QUERY, "documents": texts, "model": "ranker"}
        return await client.post(path, json=body | fields)

    long = ("Mars", "x" * 5_000)
    same = (await rank(*long)).json()
    kept = "data" if path == "/v1/score" else "results"
    for may in ({"truncation": True}, {"truncate": "END"}, {"truncate_prompt_tokens": -1}):
        assert (await rank(*long, **may)).json()[kept] == same[kept], may
    for name, value in (("truncation", False), ("truncate", False), ("truncate", "NONE")):
        refused = await rank(*long, **{name: value})
        assert refused.status_code == (422 if path == "/v2/rerank" else 400)
        assert f"Text 1 is longer than the model's window, and {name} is false." in refused.text
        assert (await rank("Mars", **{name: value})).status_code == 200
    for fields in ({"truncate": "START"}, {"truncate_prompt_tokens": 9}):
        refused = await rank("Mars", **fields)
        assert (refused.status_code, "unsupported_field" in refused.text) == (400, True), fields
