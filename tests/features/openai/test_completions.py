"""`/v1/completions` on the fake model: shapes, several prompts, streams, what is refused."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from openai_misbehaviours import refuse
from openai_server import PROVIDER_WORDS, USAGE, Behaviour, Exchange, OpenAiServer
from serving import serving
from test_openai import check_error, events

MODELS = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
system_prompt = "Be kind."
"""
REMOTE = '[[models]]\nname = "far"\ntask = "chat"\nengine = "remote"\nsource = "openai:m"\n'


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    with OpenAiServer() as server:
        yield server


@pytest.fixture(scope="module")
async def client(
    server: OpenAiServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    models = f'{MODELS}{REMOTE}base_url = "{server.url}"\n'
    async with serving(tmp_path_factory.mktemp("completions"), models) as client:
        yield client


async def ask(client: AsyncClient, **body: Any) -> Response:
    return await client.post("/v1/completions", json={"prompt": "one two three", **body})


async def test_an_answer_has_openai_s_shape(client: AsyncClient) -> None:
    body = (await ask(client, logprobs=0)).json()
    assert body.pop("id").startswith("cmpl-")
    assert body.pop("created")
    scores = {"one": 0.0}, {" two": 0.0}, {" three": 0.0}
    assert body == {
        "object": "text_completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "text": "one two three",
                "logprobs": {
                    "tokens": ["one", " two", " three"],
                    "token_logprobs": [0.0, 0.0, 0.0],
                    "top_logprobs": [*scores],
                    "text_offset": [0, 3, 7],
                },
                "finish_reason": "stop",
            }
        ],
        # Without the system prompt.
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "system_fingerprint": None,
    }


async def test_each_prompt_has_its_answers_in_order(client: AsyncClient) -> None:
    body = (await ask(client, prompt=["a b", "c"], n=2, echo=True, max_tokens=1)).json()
    assert [(c["index"], c["text"]) for c in body["choices"]] == [
        (0, "a ba"),
        (1, "a ba"),
        (2, "cc"),
        (3, "cc"),
    ]
    assert body["usage"]["prompt_tokens"] == 6


async def test_a_stream_has_the_same_answers(client: AsyncClient) -> None:
    asked = {"prompt": ["a b", "c"], "echo": True, "stream": True}
    *chunks, last = events(await ask(client, **asked, stream_options={"include_usage": True}))
    for index, (text, tokens) in enumerate([("a ba b", 4), ("cc", 3)]):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(choice["text"] for choice in own) == text
        assert [choice["finish_reason"] for choice in own] == [None] * (tokens - 1) + ["stop"]
    assert last["usage"]["completion_tokens"] == 3
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ["x"] * 5, "n": 2}, "n"),
        ({"echo": True, "logprobs": 1}, "logprobs"),
        ({"unheard_of": 1}, "unheard_of"),
    ],
)
async def test_what_is_not_supported_is_400_and_named(
    client: AsyncClient, fields: dict[str, Any], param: str
) -> None:
    assert param in check_error(await ask(client, **fields), 400, "unsupported_field", param)


@pytest.mark.parametrize(
    ("path", "field"),
    [("completions", "prompt"), ("responses", "input"), ("chat/completions", "messages")],
)
async def test_a_prompt_that_is_too_long_is_named(
    client: AsyncClient, path: str, field: str
) -> None:
    text = "one " * 5_000
    asked = [{"role": "user", "content": text}] if field == "messages" else text
    for stream in (False, True):
        answer = await client.post(f"/v1/{path}", json={field: asked, "stream": stream})
        check_error(answer, 400, "context_length_exceeded", field)


def goes_on(*tokens: str, end: bool = True) -> Behaviour:
    """Go on with a text, as OpenAI's `/completions` does."""

    def behave(exchange: Exchange) -> None:
        head = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m"}
        exchange.begin()
        for token in tokens:
            logprobs = {
                "tokens": [token],
                "token_logprobs": [-0.5],
                "top_logprobs": [{token: -0.5, "?": -2.0}],
                "text_offset": [0],
            }
            one = {"index": 0, "text": token, "finish_reason": None}
            scored = {"logprobs": logprobs if "logprobs" in exchange.request.body else None}
            exchange.event({**head, "choices": [{**one, **scored}]})
        if end:
            last = {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
            exchange.event({**head, "choices": [last]})
            exchange.event({**head, "choices": [], "usage": USAGE})
        exchange.send(b"data: [DONE]\n\n")
        exchange.end()

    return behave


async def test_a_remote_model_goes_on_with_texts_at_its_server(
    client: AsyncClient, server: OpenAiServer
) -> None:
    server.behave(goes_on(" upon", " a time"))
    body = {"model": "far", "prompt": "Once", "max_tokens": 2, "stop": "!", "top_k": 3, "seed": 5}
    answer = (await ask(client, **body, echo=True)).json()
    (choice,) = answer["choices"]
    assert (choice["text"], choice["finish_reason"]) == ("Once upon a time", "length")
    assert answer["usage"]["prompt_tokens"] == 9
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    (request,) = server.requests
    assert request.path == "/v1/completions"
    sent = {"stream": True, "stream_options": {"include_usage": True}, "stop": ["!"]}
    assert request.body == {**body, **sent, "model": "m"}

    *chunks, last = events(await ask(client, **body, logprobs=1, n=2, stream=True))
    for index in (0, 1):
        choices = [choice for each in chunks for choice in each["choices"]]
        own = [choice for choice in choices if choice["index"] == index]
        assert "".join(choice["text"] for choice in own) == " upon a time"
        assert own[1]["logprobs"] == {
            "tokens": [" a time"],
            "token_logprobs": [-0.5],
            "top_logprobs": [{" a time": -0.5, "?": -2.0}],
            "text_offset": [5],
        }
    assert last["choices"]
    assert [request.body["seed"] for request in server.requests[1:]] == [5, 6]
    assert {request.body["logprobs"] for request in server.requests[1:]} == {1}


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "requests"),
    [
        (refuse(404), 502, "upstream_model_not_found", 1),
        (refuse(401), 502, "upstream_unauthorized", 1),
        (refuse(429, Retry_After="7"), 503, "upstream_busy", 1),
        (refuse(400), 400, "options_refused", 1),
        (refuse(400, text="maximum context length"), 400, "context_length_exceeded", 1),
        (refuse(500), 502, "upstream_failed", 3),
        (Exchange.cut, 502, "upstream_unreachable", 3),
        (goes_on(" upon", end=False), 502, "upstream_unreachable", 1),
    ],
)
async def test_failures_of_a_remote_server_are_typed(
    client: AsyncClient,
    server: OpenAiServer,
    behaviour: Behaviour,
    status: int,
    code: str,
    requests: int,
) -> None:
    server.behave(behaviour)
    answer = await ask(client, model="far")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert len(server.requests) == requests
    assert PROVIDER_WORDS not in answer.text


async def test_what_is_not_passed_on_is_refused_for_remote_models_too(client: AsyncClient) -> None:
    answer = await ask(client, model="far", suffix="x")
    check_error(answer, 400, "unsupported_field", "suffix")
