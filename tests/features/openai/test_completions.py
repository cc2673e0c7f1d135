"""`/v1/completions` on the fake model: shapes, several prompts, streams, what is refused."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from openai_server import OpenAiServer
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
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    with OpenAiServer() as server:
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


async def test_a_remote_model_has_conversations_only(client: AsyncClient) -> None:
    answer = await ask(client, model="far")
    assert "chat/completions" in check_error(answer, 400, "options_refused", "prompt")
