"""OpenAI's dialect under `/v1`: shapes, what is refused and how, on fake models."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx2 import Response
from serving import make_app, running, serving

from app.engines.chat_base import GenerationOptions, Message
from app.errors import RateLimitExceededError
from app.http.error_bodies import openai_error
from app.http.openai_fields import Refused, WithoutEffect, done, marked
from app.services.token_stream import OnEnd
from app.tasks.chat.openai_schemas import ChatCompletionRequest

MODELS = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
context_tokens = 20

[[models]]
name = "breaks"
task = "chat"
engine = "fake"
fake = { fail_after = 2 }

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
fake = { fail_on = "poison" }
limits = { max_tokens = 100 }

[[models]]
name = "classifier"
engine = "fake"

[[models]]
name = "broken"
task = "chat"
engine = "fake"
fake = { fail_load = true }
"""
ASKED = [{"role": "user", "content": "one two three"}]
CHAT = "/v1/chat/completions"


def check_error(answer: Response, status: int, code: str, param: str | None = None) -> str:
    """Check OpenAI's shape of an error; return its message."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["X-Request-ID"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == ("server_error" if status >= 500 else "invalid_request_error")
    assert (error["code"], error["param"]) == (code, param)
    assert error["message"]
    return str(error["message"])


async def chat(tmp_path: Path, **body: Any) -> Response:
    async with serving(tmp_path, MODELS) as client:
        return await client.post(CHAT, json={"model": "echo", "messages": ASKED, **body})


def events(answer: Response) -> list[Any]:
    """Return the JSON of a stream's events; the last has to be the end's mark."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, last, empty = answer.text.split("\n\n")
    assert (last, empty) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_a_whole_answer_has_openai_s_shape(tmp_path: Path) -> None:
    before_s = int(time.time())
    body = (await chat(tmp_path)).json()
    assert body.pop("id").startswith("chatcmpl-")
    assert before_s <= body.pop("created") <= time.time()
    assert body == {
        "object": "chat.completion",
        "model": "echo",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "one two three", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 3,
            "total_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
        "system_fingerprint": None,
    }


async def test_a_stream_names_the_role_the_tokens_the_reason_and_done(tmp_path: Path) -> None:
    chunks = events(await chat(tmp_path, stream=True))
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert all("usage" not in chunk for chunk in chunks)
    assert {(c["object"], c["model"], c["system_fingerprint"]) for c in chunks} == {
        ("chat.completion.chunk", "echo", None)
    }
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["delta"].get("content") for c in choices] == ["", "one", " two", " three", None]
    assert [c["finish_reason"] for c in choices] == [None, None, None, None, "stop"]


async def test_usage_is_the_last_chunk_of_a_stream_that_asks_for_it(tmp_path: Path) -> None:
    *chunks, last = events(
        await chat(tmp_path, stream=True, stream_options={"include_usage": True})
    )
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 6
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    assert all(chunk["usage"] is None for chunk in chunks)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_both_names_of_the_bound_cut_the_answer(tmp_path: Path, name: str) -> None:
    (choice,) = (await chat(tmp_path, **{name: 2})).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")


async def test_content_may_be_parts_and_developer_is_system(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": "", "refusal": None, "tool_calls": None},
        {"role": "user", "content": parts},
    ]
    (choice,) = (await chat(tmp_path, messages=messages)).json()["choices"]
    assert choice["message"]["content"] == "a b"


async def test_several_answers_are_numbered_and_counted_together(tmp_path: Path) -> None:
    body = (await chat(tmp_path, n=3)).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {c["message"]["content"] for c in body["choices"]} == {"one two three"}
    assert body["usage"]["total_tokens"] == 18
    *chunks, last = events(
        await chat(tmp_path, n=2, stream=True, stream_options={"include_usage": True})
    )
    for index in range(2):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert [c["delta"].get("content") for c in own] == ["", "one", " two", " three", None]
        assert own[-1]["finish_reason"] == "stop"
    assert last["usage"]["total_tokens"] == 12


async def test_one_of_several_that_fails_fails_all(tmp_path: Path) -> None:
    check_error(await chat(tmp_path, n=2, model="breaks"), 500, "inference_failed")
    assert events(await chat(tmp_path, n=2, model="breaks", stream=True))[-1]["error"]
    for stream in (True, False):
        answer = await chat(tmp_path, n=2, model="nobody", stream=stream)
        check_error(answer, 404, "model_not_found", "model")


async def test_logprobs_are_with_each_token(tmp_path: Path) -> None:
    (choice,) = (await chat(tmp_path, logprobs=True)).json()["choices"]
    assert [t["token"] for t in choice["logprobs"]["content"]] == ["one", " two", " three"]
    chunks = events(await chat(tmp_path, logprobs=True, stream=True))
    scored = [c["choices"][0] for c in chunks if c["choices"][0]["delta"].get("content")]
    assert [c["logprobs"]["content"][0]["token"] for c in scored] == ["one", " two", " three"]


async def test_an_error_before_the_first_token_of_a_stream_has_its_status(tmp_path: Path) -> None:
    long = [{"role": "user", "content": "x " * 21}]
    for stream in (True, False):
        answer = await chat(tmp_path, messages=long, stream=stream)
        said = check_error(answer, 400, "context_length_exceeded", "messages")
        assert said.startswith("This model's maximum context length is 20 tokens")
        assert "21" in said


async def test_an_error_in_mid_stream_is_an_event_and_whole_it_is_500(tmp_path: Path) -> None:
    *chunks, last = events(await chat(tmp_path, model="breaks", stream=True))
    assert [c["choices"][0]["delta"]["content"] for c in chunks] == ["", "one", " two"]
    assert last["error"]["code"] == "inference_failed"
    assert last["error"]["type"] == "server_error"
    check_error(await chat(tmp_path, model="breaks"), 500, "inference_failed")


@pytest.mark.parametrize("model", ["nobody", "vectors", "x" * 5000])
async def test_an_unknown_model_is_404(tmp_path: Path, model: str) -> None:
    for stream in (True, False):
        answer = await chat(tmp_path, model=model, stream=stream)
        check_error(answer, 404, "model_not_found", "model")


NEUTRAL: list[dict[str, Any]] = [
    {"tools": [], "functions": [], "tool_choice": "none", "parallel_tool_calls": True},
    {"n": 1, "logprobs": False, "top_logprobs": 0, "logit_bias": {}, "modalities": ["text"]},
    {"frequency_penalty": 0, "presence_penalty": 0.0, "store": False, "audio": None},
    {"frequency_penalty": 0.5, "presence_penalty": -1, "logit_bias": {"50256": -100}},
    {"top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True},
    {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
    {"prompt_cache_options": {}, "prediction": {"type": "content"}, "model": None},
    {"stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    {"user": "ann", "metadata": {"a": "b"}, "service_tier": "auto", "safety_identifier": "x"},
    {"unheard_of": None, "stop": None, "seed": None, "temperature": None, "stream": None},
    {"stream_options": {"include_usage": False, "include_obfuscation": False}, "stop": []},
    {"response_format": {"type": "text"}, "top_p": 0, "temperature": 2, "seed": -(2**65)},
]


@pytest.mark.parametrize("fields", NEUTRAL)
async def test_values_without_effect_are_taken(tmp_path: Path, fields: dict[str, Any]) -> None:
    assert (await chat(tmp_path, **fields)).status_code == 200


IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1/x.png"}}
UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
    ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": {"name": "f"}}, "function_call"),
    ({"n": 9}, "n"),
    ({"audio": {"voice": "x", "format": "wav"}}, "audio"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"store": True}, "store"),
    ({"temprature": 0}, "temprature"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
    ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role"),
    ({"messages": [*ASKED, {"role": "user", "content": [IMAGE]}]}, "messages[1].content[0].type"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED)
async def test_what_is_not_supported_is_400_and_named(
    tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    said = check_error(await chat(tmp_path, **fields), 400, "unsupported_field", param)
    assert param in said


async def test_a_text_model_says_that_it_sees_no_images(tmp_path: Path) -> None:
    answer = await chat(tmp_path, messages=[{"role": "user", "content": [IMAGE]}])
    said = check_error(answer, 400, "unsupported_field", "messages[0].content[0].type")
    assert "sees no images" in said


def test_a_limit_has_a_type_of_its_own() -> None:
    assert openai_error(RateLimitExceededError())["error"]["type"] == "rate_limit_error"


def test_each_field_is_in_one_list_and_has_its_reason() -> None:
    lists = [done(ChatCompletionRequest)]
    lists += [[*marked(ChatCompletionRequest, kind)] for kind in (WithoutEffect, Refused)]
    assert sorted(name for names in lists for name in names) == sorted(
        ChatCompletionRequest.model_fields
    )
    assert {"messages", "top_k"} <= {*lists[0]}
    assert {"user", "metadata"} <= {*lists[1]}
    assert {"store", "functions"} <= {*lists[2]}


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user"}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
    ({"model": ""}, "model"),
    ({"model": 1}, "model"),
    ({"temperature": 2.1}, "temperature"),
    ({"frequency_penalty": 2.1}, "frequency_penalty"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"n": True}, "n"),
    ({"n": 0}, "n"),
    ({"logprobs": 0}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"reasoning_effort": "huge"}, "reasoning_effort"),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
    ),
    ({"temperature": "0"}, "temperature"),
    ({"top_p": -0.1}, "top_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    ({"seed": 0.5}, "seed"),
    ({"stop": ["x"] * 5}, "stop"),
    ({"stop": [""]}, "stop[0]"),
    ({"stream": "yes"}, "stream"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 1}}},
        "response_format.json_schema.schema",
    ),
]


@pytest.mark.parametrize(("fields", "param"), INVALID)
async def test_a_wrong_value_is_400_and_named(
    tmp_path: Path, fields: dict[str, Any], param: str
) -> None:
    said = check_error(await chat(tmp_path, **fields), 400, "invalid_request", param)
    assert said.startswith(param)


async def test_a_header_that_is_wrong_is_named_without_its_place(tmp_path: Path) -> None:
    async with serving(tmp_path, MODELS) as client:
        headers = {"X-Request-Timeout-Ms": "soon"}
        body = {"model": "echo", "messages": ASKED}
        answer = await client.post(CHAT, json=body, headers=headers)
    check_error(answer, 400, "invalid_request", "x-request-timeout-ms")


async def test_a_schema_reaches_the_engine_as_the_client_wrote_it() -> None:
    from app.tasks.chat.openai_routes import _conversation

    async def account(_messages: Sequence[Message], _tools: Any) -> OnEnd:
        return lambda _: None

    schema = {"type": "object", "properties": {"a": {"const": None}}, "x": [1, {"y": None}]}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    asked = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": ASKED, "response_format": wanted, "seed": -1, "stop": "."}
    )
    options: GenerationOptions = (await _conversation(asked, account)).options
    assert options.response_format == wanted
    assert options.seed == 2**32 - 2
    assert options.stop == (".",)


async def test_without_a_model_the_default_one_answers(tmp_path: Path) -> None:
    async with serving(tmp_path, MODELS) as client:
        told = await client.post(CHAT, json={"messages": ASKED})
        embedded = await client.post("/v1/embeddings", json={"input": "x"})
    assert told.json()["model"] == "echo"
    assert embedded.json()["model"] == "vectors"


async def embed(tmp_path: Path, **body: Any) -> Response:
    async with serving(tmp_path, MODELS) as client:
        return await client.post("/v1/embeddings", json={"model": "vectors", **body})


async def test_embeddings_have_openai_s_shape_and_count_tokens(tmp_path: Path) -> None:
    body = (await embed(tmp_path, input=["abc", "x" * 101], dimensions=384, user="ann")).json()
    assert (body["object"], body["model"]) == ("list", "vectors")
    assert [(item["object"], item["index"]) for item in body["data"]] == [
        ("embedding", 0),
        ("embedding", 1),
    ]
    assert body["usage"] == {"prompt_tokens": 103, "total_tokens": 103}, "after cutting"
    vectors = np.array([item["embedding"] for item in body["data"]])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


async def test_base64_is_the_same_vector_in_little_endian_float32(tmp_path: Path) -> None:
    (plain,) = (await embed(tmp_path, input="abc")).json()["data"]
    (packed,) = (await embed(tmp_path, input="abc", encoding_format="base64")).json()["data"]
    vector = np.frombuffer(base64.b64decode(packed["embedding"]), dtype="<f4")
    assert np.allclose(vector, plain["embedding"], atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"input": [1, 2, 3]}, "unsupported_field", "input"),
        ({"input": [[1, 2], [3]]}, "unsupported_field", "input"),
        ({"input": "x", "dimensions": 385}, "unsupported_field", "dimensions"),
        ({"input": "x", "precision": "int8"}, "unsupported_field", "precision"),
        ({"input": []}, "invalid_request", "input"),
        ({"input": [""]}, "invalid_request", "input[0]"),
        ({"input": ["x", None]}, "invalid_request", "input[1]"),
        ({"input": ["x"] * 2049}, "invalid_request", "input"),
        ({}, "invalid_request", "input"),
        ({"input": "x", "encoding_format": "hex"}, "invalid_request", "encoding_format"),
    ],
)
async def test_wrong_embeddings_requests_are_400_and_named(
    tmp_path: Path, fields: dict[str, Any], code: str, param: str
) -> None:
    message = check_error(await embed(tmp_path, **fields), 400, code, param)
    if code == "unsupported_field" and param == "input":
        assert "check_embedding_ctx_length=False" in message, "it says what to do"


async def test_embeddings_fail_and_miss_in_openai_s_shape(tmp_path: Path) -> None:
    check_error(await embed(tmp_path, input="poison"), 500, "inference_failed")
    check_error(await embed(tmp_path, input="x", model="echo"), 404, "model_not_found", "model")


async def test_models_lists_what_is_served_now_and_chat_first(tmp_path: Path) -> None:
    async with serving(tmp_path, MODELS) as client:
        listed = (await client.get("/v1/models")).json()
        one = (await client.get("/v1/models/echo")).json()
        broken = await client.get("/v1/models/broken")
        unknown = await client.get("/v1/models/nobody")
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["echo", "breaks", "vectors", "classifier"]
    assert [model["tasks"] for model in listed["data"]][2:] == [
        ["embedding"],
        ["text-classification"],
    ]
    assert one in listed["data"]
    assert one["object"] == "model"
    assert one["owned_by"] == "ml-api"
    assert time.time() - 60 < one["created"] <= time.time()
    check_error(broken, 503, "model_unavailable")
    check_error(unknown, 404, "model_not_found", "model")


async def chunks(size: int) -> AsyncIterator[bytes]:
    yield b"[" * size


async def stalls() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


async def test_errors_of_the_framework_have_openai_s_shape_too(tmp_path: Path) -> None:
    as_json = {"Content-Type": "application/json"}
    limits = {"max_body_bytes": 1000, "request_timeout_ms": 500}
    async with serving(tmp_path, MODELS, **limits) as client:
        check_error(await client.get("/v1"), 404, "not_found")
        check_error(await client.post("/v1/nothing", json={}), 404, "not_found")
        wrong = await client.get(CHAT)
        check_error(wrong, 405, "method_not_allowed")
        assert wrong.headers["Allow"] == "POST"

        async def post(content: Any, headers: dict[str, str]) -> Response:
            return await client.post(CHAT, content=content, headers=headers)

        check_error(await post(b"{", as_json), 400, "malformed_json")
        check_error(await post(b"", as_json), 400, "invalid_request")
        check_error(await post(b"[]", as_json), 400, "invalid_request")
        check_error(await post(chunks(1001), as_json), 413, "body_too_large")
        text = {"Content-Type": "text/plain"}
        check_error(await post(b"{}", text), 415, "unsupported_media_type")
        check_error(await post(stalls(), as_json), 408, "body_timeout")
        lost = await client.post("/chat/completions", json={})
        assert lost.status_code == 404
        assert "/v1" in lost.json()["detail"]
        outside = await client.get("/v1x")
        assert outside.headers["content-type"] == "application/problem+json"


async def test_a_crash_under_v1_is_a_500_in_openai_s_shape(tmp_path: Path) -> None:
    app = make_app(tmp_path, MODELS)

    async def crash() -> None:
        raise RuntimeError("secret")

    app.get("/v1/crash")(crash)
    async with running(app) as client:
        assert "secret" not in check_error(await client.get("/v1/crash"), 500, "internal_error")


async def test_a_model_that_is_loading_is_503_with_retry_after(tmp_path: Path) -> None:
    slow = '[[models]]\nname = "slow"\ntask = "chat"\nengine = "fake"\n'
    slow += "fake = { load_delay_ms = 300 }\n"
    asked = {"model": "slow", "messages": ASKED}
    async with running(make_app(tmp_path, slow), wait=False) as client:
        answers = [
            await client.post(CHAT, json=asked),
            await client.post(CHAT, json={**asked, "stream": True}),
            await client.get("/v1/models/slow"),
        ]
        assert (await client.get("/v1/models")).json() == {"object": "list", "data": []}
    for answer in answers:
        check_error(answer, 503, "model_not_ready")
        assert int(answer.headers["Retry-After"]) > 0
