"""Decisions of a chat model on another server, by the probabilities that it gives."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from httpx2 import AsyncClient
from openai_misbehaviours import refuse
from openai_server import PROVIDER_WORDS, Behaviour, Exchange, OpenAiServer
from serving import serving

MODELS = """
[[models]]
name = "far"
task = "chat"
engine = "remote"
source = "openai:gpt"
base_url = "{url}"
slots = 1
"""
CHOICE = {"type": "choice", "choices": [{"value": value} for value in ("red", "green", "blue")]}
PREDICATE = {"type": "predicate", "instructions": "Something is broken."}
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 1,
    "total_tokens": 31,
    "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 7},
}


def likes(probabilities: dict[str, float], **more: Any) -> Behaviour:
    """Answer one token, with how likely it and others were."""
    top = [{"token": text, "logprob": math.log(p)} for text, p in probabilities.items()]

    def behave(exchange: Exchange) -> None:
        content = [{**top[0], "top_logprobs": top}] if top else []
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "A"},
            "logprobs": {"content": content},
            "finish_reason": "length",
        }
        body = {"id": "x", "object": "chat.completion", "choices": [choice], "usage": USAGE}
        exchange.answer(200, json.dumps({**body, **more}).encode(), {})

    return behave


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer() as server:
        yield server


@pytest.fixture(scope="module")
async def client(
    server: OpenAiServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), MODELS.format(url=server.url)) as client:
        yield client


async def decide(client: AsyncClient, *questions: Any, **headers: str) -> Any:
    body = {"model": "far", "input": "It is late.", "questions": list(questions)}
    return await client.post("/v1/decisions", json=body, headers=headers)


async def test_labels_have_the_probabilities_that_the_server_gives(
    client: AsyncClient, server: OpenAiServer
) -> None:
    # Tokens of bytes may have the same text; a token may have a space in front.
    server.behave(likes({"B": 0.5, " B": 0.1, "A": 0.2, "?": 0.1}), likes({"no": 0.2, " Yes": 0.6}))
    answer = (await decide(client, CHOICE, PREDICATE)).json()
    choice, predicate = answer["answers"]
    found = [one["probability"] for one in choice["probabilities"]]
    assert found == pytest.approx([0.25, 0.75, 0])
    assert (choice["choice"], choice["confidence"]) == ("green", pytest.approx(0.6))
    assert predicate["probability"] == pytest.approx(0.75)
    assert answer["usage"]["input_tokens"] == 60
    details = answer["usage"]["input_tokens_details"]
    assert details == {"cache_write_tokens": 14, "cached_tokens": 8}
    first, _ = server.requests
    assert first.path == "/v1/chat/completions"
    (message,) = first.body.pop("messages")
    assert "It is late." in message["content"]
    asked = {"model": "gpt", "max_completion_tokens": 1, "logprobs": True, "top_logprobs": 20}
    assert first.body == asked


async def test_a_model_that_would_say_no_label_declines(
    client: AsyncClient, server: OpenAiServer
) -> None:
    server.behave(likes({"The": 0.9}, usage=None))
    answer = (await decide(client, CHOICE)).json()
    assert answer["answers"][0]["type"] == "refusal"
    assert answer["usage"]["input_tokens"] > 10, "they are estimated"


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "param"),
    [
        (likes({}), 400, "unsupported_field", "model"),
        (
            likes({"A": 0.5}, choices=[{"message": {"content": "A"}}]),
            400,
            "unsupported_field",
            "model",
        ),
        (refuse(400, text="logprobs are not supported"), 400, "options_refused", "model"),
        (refuse(400, text="maximum context length"), 400, "context_length_exceeded", "input"),
        (refuse(401), 502, "upstream_unauthorized", None),
        (refuse(500), 502, "upstream_failed", None),
        (likes({"A": 0.5}, choices=[]), 502, "upstream_failed", None),
        (likes({"A": 0.5}, more="x" * 2**21), 502, "upstream_failed", None),
    ],
)
async def test_what_a_server_cannot_do_is_said(
    client: AsyncClient,
    server: OpenAiServer,
    behaviour: Behaviour,
    status: int,
    code: str,
    param: str | None,
) -> None:
    server.behave(behaviour)
    answer = await decide(client, CHOICE)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert PROVIDER_WORDS not in answer.text


async def test_more_options_than_the_server_tells_apart_are_refused(client: AsyncClient) -> None:
    many = {"type": "choice", "choices": [{"value": str(number)} for number in range(21)]}
    error = (await decide(client, many)).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "questions[0].choices")
    assert "20 options" in error["message"]


async def test_a_server_that_is_silent_holds_its_place_no_longer_than_the_deadline(
    client: AsyncClient, server: OpenAiServer
) -> None:
    server.behave(lambda exchange: void(exchange.hold()), likes({"A": 0.5}))
    late = await decide(client, CHOICE, **{"X-Request-Timeout-Ms": "200"})
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    again = await decide(client, CHOICE)
    assert again.status_code == 200, again.text
    assert len(server.requests) == 2


async def test_a_client_that_leaves_ends_the_call_and_gives_the_place_back(
    client: AsyncClient, server: OpenAiServer
) -> None:
    server.behave(lambda exchange: void(exchange.hold()), likes({"A": 0.5}))
    asking = asyncio.create_task(decide(client, CHOICE, CHOICE))
    while not server.requests:
        await asyncio.sleep(0.01)  # it tells no event of this loop
    asking.cancel()
    assert await asyncio.to_thread(server.left.wait, 9)
    again = await decide(client, CHOICE)
    assert again.status_code == 200, again.text
    assert len(server.requests) == 2, "the other question isn't asked"


def void(_: object) -> None:
    """Have no answer."""
