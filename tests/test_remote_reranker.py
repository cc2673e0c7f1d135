"""Rerankers of other servers, through the app: what they are asked, and what failures become."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from openai_misbehaviours import refuse
from openai_server import PROVIDER_WORDS, Behaviour, Exchange, OpenAiServer
from serving import FatalError, serving

from app.engines.base import EngineRequest, Task
from app.engines.chat_base import ChatOptions
from app.engines.remote_reranker import load
from app.errors import EngineError

VARIABLE = "TEST_RERANK_KEY"
KEY = "a-very-secret-key"
ENTRY = """
[[models]]
name = "far"
task = "text-ranking"
engine = "remote"
required = true
"""
ASK = {"query": "q", "documents": ["one", "three", "to"]}
Scores = Callable[[str], Any]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def ranks(score: Scores = len, **more: Any) -> Behaviour:
    """Answer the best first, as Cohere and Jina do."""

    def behave(exchange: Exchange) -> None:
        texts = exchange.request.body["documents"]
        rows = [
            {"index": i, "relevance_score": score(text), "document": {"text": text}}
            for i, text in enumerate(texts)
        ]
        rows.sort(key=lambda row: -float(row["relevance_score"]))
        body = {"model": "x", "results": rows, "usage": {"total_tokens": 9}, **more}
        exchange.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    return behave


async def ask(
    tmp_path: Path,
    *behaviours: Behaviour,
    provider: str = "openai",
    path: str = "/rerank",
    body: Any = ASK,
    **headers: str,
) -> tuple[Response, OpenAiServer]:
    with OpenAiServer(*behaviours) as server:
        source = f'source = "{provider}:ranker"\nbase_url = "{server.url}"\n'
        entry = f'{ENTRY}{source}api_key_env = "{VARIABLE}"\nlimits = {{ max_batch = 4 }}\n'
        async with serving(tmp_path, entry) as client:
            response = await client.post(path, json=body, headers=headers)
    return response, server


@pytest.mark.parametrize("provider", ["openai", "jina", "cohere"])
async def test_texts_are_ranked_by_the_server_s_numbers(tmp_path: Path, provider: str) -> None:
    response, server = await ask(tmp_path, ranks(), provider=provider)
    ranked = [(row["index"], row["relevance_score"]) for row in response.json()["results"]]
    assert ranked == [(1, 5.0), (0, 3.0), (2, 2.0)]
    (request,) = server.requests
    assert request.path == "/v1/rerank"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    own = {} if provider == "cohere" else {"return_documents": False}
    documents = sorted(request.body.pop("documents"))  # the queue puts the short ones first
    assert documents == sorted(ASK["documents"])
    assert request.body == {"model": "ranker", "top_n": 3, "query": "q", **own}


async def test_clients_dialects_pairs_and_many_texts_are_served_too(tmp_path: Path) -> None:
    texts = [str(number) * number for number in range(1, 10)]
    body: dict[str, Any] = {"model": "far", "query": "q", "documents": texts, "top_n": 2}
    for path in ("/v1/rerank", "/v2/rerank"):
        response, server = await ask(tmp_path, ranks(), path=path, body=body)
        assert [row["index"] for row in response.json()["results"]] == [8, 7]
        asked = [request.body["documents"] for request in server.requests]
        assert max(map(len, asked)) <= 4
        assert sorted(text for some in asked for text in some) == sorted(texts)
    body = {"model": "far", "text_1": ["a", "b"], "text_2": ["one", "three"]}
    response, server = await ask(tmp_path, ranks(), path="/v1/score", body=body)
    assert [row["score"] for row in response.json()["data"]] == [3.0, 5.0]
    assert {request.body["query"] for request in server.requests} == {"a", "b"}


def replies(content: Any, status: int = 200) -> Behaviour:
    return lambda exchange: exchange.answer(status, json.dumps(content).encode(), {})


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "requests"),
    [
        (refuse(401), 502, "upstream_unauthorized", 1),
        (refuse(404), 502, "upstream_model_not_found", 1),
        (refuse(429, Retry_After="7"), 503, "upstream_busy", 1),
        (refuse(500), 502, "upstream_failed", 3),
        (Exchange.cut, 502, "upstream_unreachable", 3),
        (ranks(results=[]), 502, "upstream_failed", 1),
        (ranks(results=[{"index": n, "relevance_score": 1} for n in (0, 1, 1)]), 502, None, 1),
        (ranks(results=[{"index": n, "relevance_score": None} for n in (0, 1, 2)]), 502, None, 1),
        (ranks(results=[{"index": n, "relevance_score": 10**400} for n in range(3)]), 502, None, 1),
        (ranks(more="x" * 2**21), 502, "upstream_failed", 1),
        (replies([PROVIDER_WORDS]), 502, "upstream_failed", 1),
    ],
)
async def test_failures_of_the_server_are_typed_and_bounded(
    tmp_path: Path, behaviour: Behaviour, status: int, code: str | None, requests: int
) -> None:
    response, server = await ask(tmp_path, behaviour)
    assert (response.status_code, response.json()["code"]) == (status, code or "upstream_failed")
    assert len(server.requests) == requests
    for secret in (KEY, str(server.port), "127.0.0.1", PROVIDER_WORDS):
        assert secret not in response.text


async def test_a_number_that_is_none_fails_its_text(tmp_path: Path) -> None:
    response, _ = await ask(tmp_path, ranks(lambda _: "nan"))
    assert (response.status_code, response.json()["code"]) == (500, "inference_failed")


async def test_a_text_that_is_too_long_is_refused(tmp_path: Path) -> None:
    def behave(exchange: Exchange) -> None:
        is_long = "three" in exchange.request.body["documents"]
        (refuse(400, text="maximum context length") if is_long else ranks())(exchange)

    response, _ = await ask(tmp_path, behave)
    assert (response.status_code, response.json()["code"]) == (422, "text_too_long")


async def test_nothing_is_asked_past_the_deadline(tmp_path: Path) -> None:
    response, server = await ask(tmp_path, refuse(500), **{"X-Request-Timeout-Ms": "150"})
    assert response.status_code in {502, 504}
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"source": "voyage:x"}, "a remote reranker is one of cohere:x, jina:x, openai:x"),
        ({"source": "openai:x"}, "OpenAI ranks nothing: base_url"),
        ({"source": "jina:x"}, "jina wants a key"),
        ({"source": "jina:x", "base_url": "ftp://x"}, "base_url must be http"),
        ({"source": "x"}, "the source of a remote model is provider:model"),
    ],
)
def test_an_entry_that_could_only_fail_is_refused(fields: dict[str, Any], says: str) -> None:
    chat = ChatOptions(slots=1, context_tokens=1, **fields)
    request = EngineRequest(name="far", task=Task.RANKING, engine="remote", chat=chat)
    with pytest.raises(EngineError, match=says):
        load(request)


async def test_providers_have_their_own_addresses(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="cohere wants a key"):
        async with serving(tmp_path, f'{ENTRY}source = "cohere:rerank-v3.5"\n'):
            pass
