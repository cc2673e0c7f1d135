"""Embedders of other servers, through the app: what they are asked, and what failures become."""

import asyncio
import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import Response
from openai_misbehaviours import refuse
from openai_server import PROVIDER_WORDS, Behaviour, Exchange, OpenAiServer
from serving import FatalError, serving

from app.engines.remote_texts import RemoteText, places

VARIABLE = "TEST_REMOTE_KEY"
KEY = "sk-a-very-secret-key"
WIDTH = 6
ENTRY = """
[[models]]
name = "far"
task = "embedding"
engine = "remote"
required = true
source = "openai:text-embedding-test"
"""
SIZED = f"dimensions = {WIDTH}\n"
ASK = {"texts": ["one", "two", "three"]}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, KEY)


def vector_of(text: str) -> list[float]:
    """Return what the server answers: by the text, and of no length in particular."""
    numbers = np.random.default_rng(list(text.encode())).normal(size=WIDTH)
    return [float(x) for x in numbers.astype(np.float32)]


def in_base64(vector: list[float]) -> Any:
    return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


def embeds(form: Callable[[list[float]], Any] = in_base64) -> Behaviour:
    """Answer well, in another order than the texts'."""

    def behave(exchange: Exchange) -> None:
        texts = exchange.request.body["input"]
        rows = [
            {"object": "embedding", "index": i, "embedding": form(vector_of(text))}
            for i, text in enumerate(texts)
        ]
        body = {"object": "list", "data": rows[::-1], "usage": {"prompt_tokens": 9}}
        exchange.answer(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    return behave


def replies(content: Any, status: int = 200, **headers: str) -> Behaviour:
    return lambda exchange: exchange.answer(status, json.dumps(content).encode(), headers)


def refuses(bad: str, status: int, message: str) -> Behaviour:
    """Refuse each request that has a text with some words in it; answer others."""

    def behave(exchange: Exchange) -> None:
        if any(bad in text for text in exchange.request.body["input"]):
            refuse(status, text=message)(exchange)
        else:
            embeds()(exchange)

    return behave


def models(server: OpenAiServer, more: str = SIZED) -> str:
    return f'{ENTRY}base_url = "{server.url}"\napi_key_env = "{VARIABLE}"\n{more}'


async def ask(
    tmp_path: Path,
    *behaviours: Behaviour,
    path: str = "/embed",
    body: Any = ASK,
    more: str = SIZED,
) -> tuple[Response, OpenAiServer]:
    """Ask once, of a server that behaves so; it is gone afterwards, its notes aren't."""
    with OpenAiServer(*behaviours) as server:
        async with serving(tmp_path, models(server, more)) as client:
            response = await client.post(path, json=body)
    return response, server


def void(_: object) -> None:
    """Have no answer."""


def wanted(*texts: str, width: int = WIDTH) -> list[list[float]]:
    vectors = np.array([vector_of(text)[:width] for text in texts])
    scaled: list[list[float]] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).tolist()
    return scaled


@pytest.mark.parametrize("form", [in_base64, list], ids=["base64", "numbers"])
async def test_texts_go_together_and_vectors_come_in_their_order(tmp_path: Path, form: Any) -> None:
    response, server = await ask(tmp_path, embeds(form))
    assert response.status_code == 200, response.text
    assert response.json()["dimensions"] == WIDTH
    np.testing.assert_allclose(
        response.json()["embeddings"], wanted(*ASK["texts"]), rtol=0, atol=1e-6
    )
    (request,) = server.requests
    assert request.path == "/v1/embeddings"
    assert request.body == {
        "model": "text-embedding-test",
        "input": ASK["texts"],
        "encoding_format": "base64",
    }
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert not {name for name in request.headers if name.startswith(("x-", "openai"))}


async def test_without_dimensions_one_call_finds_them_out(tmp_path: Path) -> None:
    response, server = await ask(tmp_path, embeds(), more="")
    assert response.json()["dimensions"] == WIDTH
    assert [len(request.body["input"]) for request in server.requests] == [1, 3]


async def test_a_server_that_is_away_fails_the_load_only_if_it_must_be_asked(
    tmp_path: Path,
) -> None:
    with OpenAiServer() as server:
        away = models(server, "")
    with pytest.raises(FatalError, match="dimensions: upstream_unreachable; with dimensions"):
        async with serving(tmp_path, away):
            pass
    async with serving(tmp_path, away + SIZED) as client:
        assert (await client.get("/ready")).status_code == 200
        response = await client.post("/embed", json=ASK)
        health = await client.get("/health")
    assert (response.status_code, response.json()["code"]) == (502, "upstream_unreachable")
    assert health.status_code == 200


async def test_vectors_without_numbers_are_no_dimensions(tmp_path: Path) -> None:
    empty = embeds(lambda _: [])
    with pytest.raises(FatalError, match="dimensions: upstream_failed; with dimensions"):
        await ask(tmp_path, empty, more="")


async def test_fewer_dimensions_are_the_first_ones_scaled_again(tmp_path: Path) -> None:
    cut, _ = await ask(tmp_path, embeds(), more="dimensions = 4\n")
    asked, _ = await ask(tmp_path, embeds(), body=ASK | {"dimensions": 4})
    for response in (cut, asked):
        np.testing.assert_allclose(
            response.json()["embeddings"], wanted(*ASK["texts"], width=4), rtol=0, atol=1e-6
        )
    more, _ = await ask(tmp_path, embeds(), more=f"dimensions = {WIDTH + 1}\n")
    assert (more.status_code, more.json()["code"]) == (500, "inference_failed")


async def test_prompts_and_lengths_are_those_of_the_entry(tmp_path: Path) -> None:
    entry = f'{SIZED}normalize = false\nprompts = {{ query = "find: " }}\n'
    body = {"texts": ["one"], "prompt_name": "query"}
    response, server = await ask(tmp_path, embeds(), body=body, more=entry)
    assert server.requests[0].body["input"] == ["find: one"]
    np.testing.assert_allclose(
        response.json()["embeddings"], [vector_of("find: one")], rtol=0, atol=1e-6
    )


async def test_openais_clients_and_similarity_are_served_too(tmp_path: Path) -> None:
    body = {"model": "far", "input": ["one", "two"]}
    response, _ = await ask(tmp_path, embeds(), path="/v1/embeddings", body=body)
    rows = [row["embedding"] for row in response.json()["data"]]
    np.testing.assert_allclose(rows, wanted("one", "two"), rtol=0, atol=1e-6)
    body = {"source": "one", "texts": ["one", "two"]}
    response, _ = await ask(tmp_path, embeds(), path="/similarity", body=body)
    one, two = wanted("one", "two")
    np.testing.assert_allclose(response.json()["scores"], [1, np.dot(one, two)], atol=1e-6)


async def test_many_texts_are_asked_for_in_bounded_requests(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(20)]
    more = f"{SIZED}limits = {{ max_batch = 8 }}\n"
    response, server = await ask(tmp_path, embeds(), body={"texts": texts}, more=more)
    assert response.status_code == 200, response.text
    asked = [request.body["input"] for request in server.requests]
    assert max(map(len, asked)) <= 8
    assert sorted(text for some in asked for text in some) == sorted(texts)


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "requests"),
    [
        (refuse(401), 502, "upstream_unauthorized", 1),
        (refuse(404), 502, "upstream_model_not_found", 1),
        (refuse(429), 503, "upstream_busy", 1),
        (refuse(500), 502, "upstream_failed", 3),
        (replies({"data": [{"index": 0, "embedding": "?"}]}), 502, "upstream_failed", 1),
        (replies({"data": []}), 502, "upstream_failed", 1),
        (replies([PROVIDER_WORDS]), 502, "upstream_failed", 1),
        (replies({}, 307, Location="http://127.0.0.1:9/"), 502, "upstream_failed", 1),
        (Exchange.cut, 502, "upstream_unreachable", 3),
    ],
)
async def test_failures_of_the_server_are_typed_and_not_multiplied(
    tmp_path: Path, behaviour: Behaviour, status: int, code: str, requests: int
) -> None:
    response, server = await ask(tmp_path, behaviour)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert len(server.requests) == requests, "for three texts: none is asked for alone"
    for secret in (KEY, str(server.port), "127.0.0.1", PROVIDER_WORDS):
        assert secret not in response.text


async def test_a_failure_that_passes_is_not_seen(tmp_path: Path) -> None:
    response, server = await ask(tmp_path, refuse(500), embeds())
    assert response.status_code == 200, response.text
    assert len(server.requests) == 2


async def test_a_busy_server_says_when_to_try_again(tmp_path: Path) -> None:
    response, _ = await ask(tmp_path, refuse(429, Retry_After="7"))
    assert response.headers["Retry-After"] == "7"


async def test_a_server_that_is_silent_is_given_up_and_not_asked_again(tmp_path: Path) -> None:
    entry = f"{SIZED}timeout_s = 0.1\n"
    response, server = await ask(tmp_path, lambda exchange: void(exchange.hold()), more=entry)
    assert (response.status_code, response.json()["code"]) == (502, "upstream_unreachable")
    assert len(server.requests) == 1


async def test_an_answer_is_bounded_in_bytes(tmp_path: Path) -> None:
    large = replies({"data": [], "more": "x" * 3 * 2**20})
    response, server = await ask(tmp_path, large)
    assert (response.status_code, response.json()["code"]) == (502, "upstream_failed")
    assert len(server.requests) == 1
    large = replies({"error": {"message": "x" * 2**20}}, 400)
    response, _ = await ask(tmp_path, large)
    assert (response.status_code, response.json()["code"]) == (422, "options_refused")


def drip(exchange: Exchange) -> None:
    """Answer a byte at a time, for as long as somebody reads."""
    exchange.begin("application/json")
    while not exchange.server.go.wait(0.02):
        exchange.send(b" ")


async def test_an_answer_that_never_ends_is_given_up(tmp_path: Path) -> None:
    response, server = await ask(tmp_path, drip, more=f"{SIZED}timeout_s = 0.1\n")
    assert (response.status_code, response.json()["code"]) == (502, "upstream_unreachable")
    assert len(server.requests) == 1


@pytest.mark.parametrize("behaviour", [refuse(500), drip], ids=["fails", "drips"])
async def test_nothing_is_asked_past_the_deadline(tmp_path: Path, behaviour: Behaviour) -> None:
    with OpenAiServer(behaviour) as server:
        async with serving(tmp_path, models(server)) as client:
            headers = {"X-Request-Timeout-Ms": "150"}
            response = await client.post("/embed", json=ASK, headers=headers)
        assert response.status_code in {502, 504}
        # The model is closed, so no call of it runs: else its retries would still come.
        assert len(server.requests) == 1
        assert behaviour is not drip or server.left.wait(5)


async def test_a_call_ends_when_all_who_wait_for_it_have_left(tmp_path: Path) -> None:
    with OpenAiServer(lambda exchange: void(exchange.hold()), embeds()) as server:
        async with serving(tmp_path, models(server)) as client:
            asking = asyncio.create_task(client.post("/embed", json=ASK))
            while not server.requests:
                await asyncio.sleep(0.01)  # it tells no event of this loop
            asking.cancel()
            assert await asyncio.to_thread(server.left.wait, 9)
            again = await client.post("/embed", json=ASK)
    assert again.status_code == 200
    assert len(server.requests) == 2, "what nobody waits for isn't asked again"


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "This model's maximum context length is 8192 tokens", "text_too_long"),
        (413, "too long", "text_too_long"),
        (422, "no", "options_refused"),
    ],
)
async def test_a_text_that_is_refused_fails_its_own_request_alone(
    tmp_path: Path, status: int, message: str, code: str
) -> None:
    with OpenAiServer(refuses("bad", status, message)) as server:
        async with serving(tmp_path, models(server)) as client:
            bad = await client.post("/embed", json={"texts": ["good", "bad"]})
            good = await client.post("/embed", json={"texts": ["good"]})
    assert (bad.status_code, bad.json()["code"]) == (422, code)
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ('source = "cohere:embed"\n', "remote embedders are asked as OpenAI's: openai:embed"),
        ('source = "openai:x"\n', "OpenAI wants a key"),
        ('source = "openai:x"\nbase_url = "ftp://x"\n', "base_url must be http"),
        ('source = "openai:x"\nbase_url = "http://x"\npooling = "cls"\n', "its server pools"),
        ('source = "x"\n', "the source of a remote model is provider:model"),
    ],
)
async def test_an_entry_that_could_only_fail_is_refused(
    tmp_path: Path, entry: str, says: str
) -> None:
    head = '[[models]]\nname = "far"\ntask = "embedding"\nengine = "remote"\nrequired = true\n'
    with pytest.raises(FatalError, match=says):
        async with serving(tmp_path, f"{head}{entry}"):
            pass


def test_tokens_are_rather_over_estimated() -> None:
    assert [("Grüße, 2026: 東京 a_b")[a:b] for a, b in places("Grüße, 2026: 東京 a_b")] == [
        *("Grüß", "e", ",", "202", "6", ":", "東", "京", "a", "_", "b"),
    ]
    assert RemoteText.of("").cost == 1
    assert RemoteText.of("good film").cost == 3
