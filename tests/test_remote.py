"""The remote engine, through the app: what is asked of the server, and what its failures become."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import Response
from openai_misbehaviours import (
    answer,
    cut_in_chunk,
    end_early,
    refuse,
    send_error,
    send_garbage,
    then,
    wait_after,
)
from openai_server import PROVIDER_WORDS, USAGE, Behaviour, Exchange, OpenAiServer, chunk, say
from serving import make_app, running, serving
from test_disconnect import Client, scope

KEY_VARIABLE = "TEST_REMOTE_KEY"
KEY = "sk-a-very-secret-key"
PATHS = ("/chat", "/chat/stream")
ASK = {"query": "hi"}
ENTRY = """
[[models]]
name = "remote"
task = "chat"
engine = "remote"
required = true
source = "openai:gpt-test"
"""


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)


def models(server: OpenAiServer, more: str = "") -> str:
    return f'{ENTRY}base_url = "{server.url}"\napi_key_env = "{KEY_VARIABLE}"\n{more}'


def last_line(response: Response) -> dict[str, Any]:
    last: dict[str, Any] = json.loads(response.text.splitlines()[-1])
    return last


def secrets(server: OpenAiServer) -> list[str]:
    """What nobody but the operator may read."""
    return [KEY, str(server.port), "127.0.0.1", PROVIDER_WORDS]


async def ask(
    tmp_path: Path, *behaviours: Behaviour, path: str = "/chat", body: Any = ASK, more: str = ""
) -> tuple[Response, OpenAiServer]:
    """Ask once, of a server that behaves so; it is gone afterwards, its notes aren't."""
    with OpenAiServer(*behaviours) as server:
        async with serving(tmp_path, models(server, more)) as client:
            response = await client.post(path, json=body)
    return response, server


class StreamClient(Client):
    """An ASGI client that reads piece by piece, as they are sent."""

    def __init__(self, body: Any = ASK) -> None:
        super().__init__(json.dumps(body).encode())
        self.came: asyncio.Queue[Any] = asyncio.Queue()

    async def send(self, message: Any) -> None:
        self.came.put_nowait(message)

    async def start(self) -> Any:
        async with asyncio.timeout(5):
            return (await self.came.get())["status"]

    async def piece(self) -> str:
        async with asyncio.timeout(5):
            body: bytes = (await self.came.get())["body"]
        return body.decode()


@asynccontextmanager
async def streaming(
    app: FastAPI, path: str = "/chat/stream", client: StreamClient | None = None
) -> AsyncIterator[StreamClient]:
    """A client in the midst of a request."""
    client = client or StreamClient()
    task = asyncio.create_task(app(scope(path), client.receive, client.send))
    try:
        yield client
    finally:
        client.left.set()
        await asyncio.wait_for(task, 5)


async def happens(event: Any) -> bool:
    """Wait for an event of the server's threads."""
    return await asyncio.to_thread(event.wait, 9)


# What is asked, and what is answered


async def test_an_answer_has_text_reason_and_usage(tmp_path: Path) -> None:
    response, server = await ask(tmp_path)
    assert response.status_code == 200
    assert response.json() == {
        "answer": "Hello wide world",
        "finish_reason": "stop",
        "usage": {name: USAGE[name] for name in response.json()["usage"]},
        "model": "remote",
    }
    assert [request.path for request in server.requests] == ["/v1/chat/completions"]


async def test_tokens_stream_as_they_come(tmp_path: Path) -> None:
    with OpenAiServer(wait_after("Hello", " wide")) as server:
        app = make_app(tmp_path, models(server))
        async with running(app), streaming(app) as client:
            assert await client.start() == 200
            text = await client.piece()
            while "wide" not in text:
                text += await client.piece()
            assert text == '{"token":"Hello"}\n{"token":" wide"}\n'
            server.go.set()
            while '"done"' not in text:
                text += await client.piece()
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[2] == {"token": " late"}
    assert (lines[3]["finish_reason"], lines[3]["usage"]["total_tokens"]) == ("stop", 12)


async def test_options_arrive_by_openais_names(tmp_path: Path) -> None:
    options = {"temperature": 0, "top_p": 0.5, "seed": 7, "max_tokens": 3}
    body = {**ASK, **options, "stop": ["x", "y"]}
    _, server = await ask(tmp_path, body=body)
    sent = server.requests[0].body
    assert sent == {
        "model": "gpt-test",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0,
        "top_p": 0.5,
        "seed": 7,
        "max_completion_tokens": 3,
        "stop": ["x", "y"],
    }


async def test_what_the_caller_leaves_open_is_left_to_the_server(tmp_path: Path) -> None:
    _, server = await ask(tmp_path)
    assert set(server.requests[0].body) == {"model", "messages", "stream", "stream_options"}


async def test_the_system_prompt_is_the_catalogues_or_the_callers(tmp_path: Path) -> None:
    own = {"messages": [{"role": "system", "content": "Mine."}, {"role": "user", "content": "hi"}]}
    with OpenAiServer() as server:
        async with serving(tmp_path, models(server, 'system_prompt = "Be {brief}."')) as client:
            await client.post("/chat", json=ASK)
            await client.post("/chat", json=own)
    firsts = [request.body["messages"][0] for request in server.requests]
    assert [m["role"] for m in firsts] == ["system", "system"]
    assert [m["content"] for m in firsts] == ["Be {brief}.", "Mine."]


async def test_a_server_that_tells_no_usage_gives_null(tmp_path: Path) -> None:
    for path in PATHS:
        response, _ = await ask(tmp_path, say("a", usage=None), path=path)
        assert last_line(response)["usage"] is None


async def test_a_cut_answer_says_length(tmp_path: Path) -> None:
    response, _ = await ask(tmp_path, say("a", finish_reason="length"))
    assert response.json()["finish_reason"] == "length"


async def test_a_stream_under_another_content_type_is_read(tmp_path: Path) -> None:
    response, _ = await ask(tmp_path, say("a", " b", kind="text/plain"))
    assert response.json()["answer"] == "a b"


async def test_a_burst_of_tokens_is_not_taken_for_a_slow_reader(tmp_path: Path) -> None:
    words = [f" {number}" for number in range(5000)]

    def burst(exchange: Exchange) -> None:
        exchange.begin()
        lines = [b"data: " + json.dumps(chunk({"content": word})).encode() for word in words]
        exchange.send(b"\n\n".join(lines) + b"\n\n")
        exchange.finish()

    response, _ = await ask(tmp_path, burst, path="/chat/stream")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["token"] for line in lines] == [*words, ""]
    assert lines[-1]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("pieces", "streamed", "whole"),
    [
        (["a", "\ud83d", "\ude00", "b"], ["a", "\U0001f600", "b"], "a\U0001f600b"),
        (["\ud83d\ude00 ", "é"], ["\U0001f600 ", "é"], "\U0001f600 é"),
        (["a\ud83d", "b", "\ude00"], ["a", "\ufffdb", "\ufffd"], "a\ufffdb\ufffd"),
    ],
    ids=["halves", "pair", "odd halves"],
)
async def test_halves_of_characters_are_joined_or_replaced_and_the_stream_goes_on(
    tmp_path: Path, pieces: list[str], streamed: list[str], whole: str
) -> None:
    response, _ = await ask(tmp_path, say(*pieces), path="/chat/stream")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["token"] for line in lines] == [*streamed, ""]
    assert (lines[-1]["done"], lines[-1]["finish_reason"]) == (True, "stop")
    response, _ = await ask(tmp_path, say(*pieces))
    assert (response.status_code, response.json()["answer"]) == (200, whole)


async def test_half_a_character_at_the_end_is_no_token(tmp_path: Path) -> None:
    response, _ = await ask(tmp_path, say("a", "\ud83d"), path="/chat/stream")
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["token"] for line in lines] == ["a", ""]
    assert lines[-1]["finish_reason"] == "stop"


# What fails before the first token

REFUSALS = [
    (refuse(400), 422, "options_refused", 1),
    (refuse(401), 502, "upstream_unauthorized", 1),
    (refuse(403), 502, "upstream_unauthorized", 1),
    (refuse(404), 502, "upstream_model_not_found", 1),
    (refuse(422), 422, "options_refused", 1),
    (refuse(429), 503, "upstream_busy", 1),
    (refuse(503, Retry_After="5"), 503, "upstream_busy", 1),
    (refuse(307, Location="http://127.0.0.1:1/v1/chat/completions"), 502, "upstream_failed", 1),
    (refuse(418), 502, "upstream_failed", 1),
    (refuse(500), 502, "upstream_failed", 3),
    (refuse(503), 502, "upstream_failed", 3),
    (answer(b"<html>", kind="text/html"), 502, "upstream_failed", 1),
    (answer(b"{garbage", kind="application/json"), 502, "upstream_failed", 1),
    (answer(b"", kind="text/event-stream"), 502, "upstream_failed", 1),
    (then(last=send_garbage), 502, "upstream_failed", 1),
    (then(last=send_error), 502, "upstream_failed", 1),
    (then(last=cut_in_chunk), 502, "upstream_unreachable", 3),
]


@pytest.mark.parametrize(("behaviour", "status", "code", "requests"), REFUSALS)
async def test_a_failure_before_the_first_token_has_its_status_and_code(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    behaviour: Behaviour,
    status: int,
    code: str,
    requests: int,
) -> None:
    with OpenAiServer(behaviour) as server:
        async with serving(tmp_path, models(server)) as client:
            for path in PATHS:
                server.requests.clear()
                response = await client.post(path, json=ASK)
                assert (response.status_code, response.json()["code"]) == (status, code)
                assert response.headers["content-type"] == "application/problem+json"
                assert len(server.requests) == requests
                visible = response.text + str(response.headers) + "".join(caplog.messages)
                assert not [secret for secret in secrets(server) if secret in visible]


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", "7"),
        ("0.2", "1"),
        ("0", "1"),
        ("-5", "1"),
        ("1.5", "2"),
        ("99999999999", "3600"),
        ("inf", "3600"),
        ("nan", "1"),
        ("soon", "1"),
        ("", "1"),
        ("Wed, 21 Oct 2015 07:28:00 GMT", "1"),
        ("Wed, 21 Oct 2985 07:28:00 GMT", "3600"),
    ],
)
async def test_the_providers_retry_after_is_passed_on_within_reason(
    tmp_path: Path, retry_after: str, seconds: str
) -> None:
    response, _ = await ask(tmp_path, refuse(429, Retry_After=retry_after))
    assert response.headers["retry-after"] == seconds


async def test_a_retry_after_that_is_a_date_is_counted_from_now(tmp_path: Path) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    response, _ = await ask(tmp_path, refuse(429, Retry_After=date))
    assert 50 <= int(response.headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    "refused",
    [
        refuse(400, code="context_length_exceeded"),
        refuse(400, text="This model's maximum context length is 8 tokens. However, you asked 9"),
        refuse(400, text="the request exceeds the available context size"),
    ],
    ids=["openai", "vllm", "llama.cpp"],
)
async def test_a_prompt_over_the_servers_context_is_422_whoever_says_so(
    tmp_path: Path, refused: Behaviour
) -> None:
    for path in PATHS:
        response, server = await ask(tmp_path, refused, path=path)
        assert (response.status_code, response.json()["code"]) == (422, "context_length_exceeded")
        assert len(server.requests) == 1


async def test_a_failure_that_passes_is_not_seen_by_the_caller(tmp_path: Path) -> None:
    for path in PATHS:
        failing = (refuse(500), then(last=cut_in_chunk))
        response, server = await ask(tmp_path, *failing, say("at", " last"), path=path)
        assert response.status_code == 200
        assert len(server.requests) == 3


async def test_a_refused_connection_is_unreachable(tmp_path: Path) -> None:
    with OpenAiServer() as server:
        app = make_app(tmp_path, models(server))
    async with running(app) as client:
        for path in PATHS:
            response = await client.post(path, json=ASK)
            assert (response.status_code, response.json()["code"]) == (502, "upstream_unreachable")
            assert not [secret for secret in secrets(server) if secret in response.text]


async def test_a_silent_server_is_ended_by_the_callers_deadline_and_let_go(tmp_path: Path) -> None:
    with OpenAiServer(wait_after()) as server:
        async with serving(tmp_path, models(server)) as client:
            for path in PATHS:
                server.behave(wait_after())
                wish = {"X-Request-Timeout-Ms": "1000"}  # the first call imports much
                response = await client.post(path, json=ASK, headers=wish)
                assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
                assert await happens(server.left)
                assert len(server.requests) == 1


# What fails after it


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (cut_in_chunk, "upstream_unreachable"),
        (end_early, "upstream_unreachable"),
        (send_error, "upstream_failed"),
        (send_garbage, "upstream_failed"),
    ],
)
async def test_a_failure_after_the_first_token_is_a_typed_last_line_and_is_not_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, last: Any, code: str
) -> None:
    response, server = await ask(tmp_path, then("a", " b", last=last), path="/chat/stream")
    assert response.status_code == 200
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert [line["token"] for line in lines] == ["a", " b", ""]
    assert lines[-1]["done"] is True
    assert lines[-1]["error"]["code"] == code
    assert len(server.requests) == 1
    visible = response.text + "".join(caplog.messages)
    assert not [secret for secret in secrets(server) if secret in visible]

    whole, again = await ask(tmp_path, then("a", last=last))
    assert (whole.status_code, whole.json()["code"]) == (502, code)
    assert len(again.requests) == 1


async def test_a_server_that_dies_in_mid_stream_gives_the_typed_last_line_within_a_second(
    tmp_path: Path,
) -> None:
    with OpenAiServer(wait_after("a")) as server:
        app = make_app(tmp_path, models(server))
        async with running(app), streaming(app) as client:
            await client.start()
            assert await client.piece() == '{"token":"a"}\n'
            died_s = time.monotonic()
            await asyncio.to_thread(server.kill)
            last = json.loads(await client.piece())
            took_s = time.monotonic() - died_s
    assert (last["done"], last["error"]["code"]) == (True, "upstream_unreachable")
    assert took_s < 1


@pytest.mark.parametrize("path", PATHS)
async def test_a_client_that_leaves_closes_the_connection_to_the_server(
    tmp_path: Path, path: str
) -> None:
    with OpenAiServer(wait_after("a")) as server:
        app = make_app(tmp_path, models(server))
        async with running(app):
            async with streaming(app, path) as client:
                while not server.requests:
                    await asyncio.sleep(0.01)  # it tells no event of this loop
                if path == "/chat/stream":
                    await client.start()
            assert await happens(server.left)
            assert len(server.requests) == 1


async def test_a_reader_that_stops_does_not_keep_the_server_generating(tmp_path: Path) -> None:
    more = asyncio.Event()

    class Stuck(StreamClient):
        async def send(self, message: Any) -> None:
            await super().send(message)
            if self.came.qsize() > 1:
                await more.wait()

    with OpenAiServer(wait_after(*["a"] * 50)) as server:
        app = make_app(tmp_path, models(server), stream_buffer_tokens=4)
        async with running(app), streaming(app, client=Stuck()) as client:
            assert await happens(server.left)
            more.set()
            assert await client.start() == 200
            text = await client.piece()
            while '"done"' not in text:
                text += await client.piece()
    assert json.loads(text.splitlines()[-1])["error"]["code"] == "reader_too_slow"


CONFIGURED = """
[[models]]
name = "gpt"
task = "chat"
engine = "remote"
source = "openai:x"
base_url = "http://127.0.0.1:9/v1"
"""


async def test_a_remote_model_is_configured_not_required(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, CONFIGURED)) as client:
        assert (await client.get("/ready")).status_code == 200
        (model,) = (await client.get("/models")).json()["models"]
    assert not model["required"]
