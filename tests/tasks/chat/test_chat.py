"""`/chat` and `/chat/stream`: whole and streamed answers, errors, and what is told of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from fastapi import FastAPI
from httpx2 import AsyncClient
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableLambda
from serving import make_app, running, serving

from app.batching.deadline import Deadline
from app.engines.chain import ChatChain
from app.engines.chat_base import ChatEngine, GenerationOptions, Message
from app.errors import ModelNotFoundError
from app.services.streaming import ChatService, Conversation
from app.services.token_stream import FinishedGeneration
from app.tasks.chat.dialects import NdjsonDialect
from app.tasks.chat.streams import StreamResponse

CHAT = """
[[models]]
name = "echo"
task = "chat"
engine = "fake"
required = true
slots = 2
waiting = 1
context_tokens = 5000

[[models]]
name = "slow"
task = "chat"
engine = "fake"
slots = 2
fake = { delay_ms = 40 }

[[models]]
name = "broken"
task = "chat"
engine = "fake"
fake = { fail_after = 2 }

[[models]]
name = "mute"
task = "chat"
engine = "fake"
fake = { fail_after = 0 }
"""
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("app"), CHAT) as client:
        yield client


def lines_of(text: str) -> Lines:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.split("\n") if line]


def metric(app: FastAPI, name: str, **labels: str) -> float:
    registry = app.state.runtime.metrics.registry
    return registry.get_sample_value(f"mlapi_{name}", labels) or 0.0


async def test_a_question_is_answered_whole(client: AsyncClient) -> None:
    answer = await client.post("/chat", json={"query": "hello big  world"})
    assert answer.status_code == 200
    assert answer.json() == {
        "answer": "hello big world",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6},
        "model": "echo",
    }


async def test_a_conversation_is_answered_by_the_model_that_it_names(client: AsyncClient) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "two three four"},
    ]
    body = {"messages": messages, "model_name": "slow", "max_tokens": 2, "stop": ["x"], "seed": 1}
    answer = (await client.post("/chat", json=body)).json()
    assert (answer["answer"], answer["finish_reason"]) == ("two three", "length")
    assert answer["usage"]["prompt_tokens"] == 7


async def test_the_catalogues_system_prompt_is_for_those_without_one(tmp_path: Path) -> None:
    models = CHAT.replace("required = true", 'required = true\nsystem_prompt = "a {brace} b"', 1)
    own = [{"role": "system", "content": "mine"}, {"role": "user", "content": "hi"}]
    async with serving(tmp_path, models) as client:
        theirs = (await client.post("/chat", json={"query": "hi"})).json()
        mine = (await client.post("/chat", json={"messages": own})).json()
    assert theirs["usage"]["prompt_tokens"] == 4
    assert mine["usage"]["prompt_tokens"] == 2


async def test_the_catalogues_temperature_is_for_requests_without_one() -> None:
    class Told:
        """A chat engine that notes the options it is asked for."""

        chat_model: Any = RunnableLambda(lambda _: AIMessage("x"))

        def arguments(self, options: GenerationOptions, _: Sequence[Message]) -> dict[str, Any]:
            temperatures.append(options.temperature)
            return {}

    temperatures: list[float | None] = []
    chain = ChatChain(cast("ChatEngine", Told()), system_prompt=None, temperature=0.2)
    for given in (None, 0.0, 1.5):
        chain.runnable([], GenerationOptions(temperature=given))
    ChatChain(cast("ChatEngine", Told()), system_prompt=None).runnable([], GenerationOptions())
    assert temperatures == [0.2, 0.0, 1.5, None]


async def test_a_stream_is_one_object_a_line_and_the_last_says_how_it_ended(
    client: AsyncClient,
) -> None:
    answer = await client.post("/chat/stream", json={"query": 'say "so"\nnow'})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "no-transform" in answer.headers["cache-control"]
    assert "content-length" not in answer.headers
    *tokens, last = lines_of(answer.text)
    assert tokens == [{"token": "say"}, {"token": ' "so"'}, {"token": " now"}]
    usage = {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert last == {"token": "", "done": True, "finish_reason": "stop", "usage": usage}


async def test_who_accepts_event_streams_gets_the_same_objects_as_events(
    client: AsyncClient,
) -> None:
    answer = await client.post(
        "/chat/stream", json={"query": "a b"}, headers={"Accept": "text/event-stream"}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = answer.text.split("\n\n")
    assert events.pop() == ""
    assert all(event.startswith("data: ") for event in events)
    objects = [json.loads(event.removeprefix("data: ")) for event in events]
    assert [o["token"] for o in objects] == ["a", " b", ""]
    assert objects[-1]["done"] is True


async def test_an_error_in_mid_stream_is_a_typed_last_line(client: AsyncClient) -> None:
    answer = await client.post(
        "/chat/stream",
        json={"query": "a b c d", "model_name": "broken"},
        headers={"X-Request-ID": "mine"},
    )
    assert answer.status_code == 200
    *tokens, last = lines_of(answer.text)
    assert tokens == [{"token": "a"}, {"token": " b"}]
    assert (last["token"], last["done"]) == ("", True)
    assert last["error"]["code"] == "inference_failed"
    assert last["error"]["status"] == 500
    assert last["error"]["request_id"] == "mine"
    assert last["error"]["instance"] == "/chat/stream"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/chat/stream", {"query": "a", "model_name": "mute"}, 500, "inference_failed"),
        ("/chat", {"query": "a b c", "model_name": "broken"}, 500, "inference_failed"),
        ("/chat", {"query": "a", "model_name": "nobody"}, 404, "model_not_found"),
        ("/chat/stream", {"query": "a", "model_name": "nobody"}, 404, "model_not_found"),
        ("/chat", {"query": "w " * 6000}, 422, "context_length_exceeded"),
        ("/chat/stream", {"query": "w " * 6000}, 422, "context_length_exceeded"),
    ],
)
async def test_an_error_before_the_first_token_has_its_own_status(
    client: AsyncClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    answer = await client.post(path, json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_chat_that_never_began_is_told_to_whoever_keeps_accounts(tmp_path: Path) -> None:
    generations: list[FinishedGeneration] = []
    app = make_app(tmp_path, CHAT)
    async with running(app):
        chat = ChatService(app.state.runtime.registry, buffer_tokens=8)
        conversation = Conversation(
            messages=[Message(role="user", content="a")],
            model_name="nobody",
            on_end=generations.append,
        )
        with pytest.raises(ModelNotFoundError):
            await chat.answer(conversation, deadline=Deadline.after(10))
    (ended,) = generations
    assert (ended.model, ended.version, ended.tokens) == ("nobody", None, 0)
    assert isinstance(ended.end, ModelNotFoundError)


USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"query": ""},
        {"query": None},
        {"query": "a", "messages": [USER]},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [USER, {"role": "system", "content": "a"}, USER]},
        {"messages": [{"role": "tool", "content": "a"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": "a", "name": "b"}]},
        {"messages": "a"},
        {"query": "a", "max_tokens": 0},
        {"query": "a", "max_tokens": 1.5},
        {"query": "a", "max_tokens": "1"},
        {"query": "a", "temperature": 2.1},
        {"query": "a", "temperature": -1},
        {"query": "a", "top_p": 0},
        {"query": "a", "top_p": 1.1},
        {"query": "a", "seed": -1},
        {"query": "a", "seed": 2**32},
        {"query": "a", "stop": ""},
        {"query": "a", "stop": ["a"] * 5},
        {"query": "a", "stop": 1},
        {"query": "a", "colour": "red"},
    ],
)
async def test_what_is_no_conversation_is_refused(
    client: AsyncClient, body: dict[str, Any]
) -> None:
    for path in ("/chat", "/chat/stream"):
        answer = await client.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


async def test_a_passed_deadline_is_504_whole_and_a_last_line_streamed(client: AsyncClient) -> None:
    body = {"query": "w " * 50, "model_name": "slow"}
    headers = {"X-Request-Timeout-Ms": "150"}
    whole = await client.post("/chat", json=body, headers=headers)
    streamed = await client.post("/chat/stream", json=body, headers=headers)
    assert (whole.status_code, whole.json()["code"]) == (504, "deadline_exceeded")
    assert lines_of(streamed.text)[-1]["error"]["code"] == "deadline_exceeded"


async def test_sixteen_at_once_are_answered_or_refused_with_a_time(tmp_path: Path) -> None:
    async with serving(tmp_path, CHAT.replace("waiting = 1", "waiting = 3")) as client:
        requests = [client.post("/chat/stream", json={"query": "w " * 200}) for _ in range(16)]
        answers = await asyncio.gather(*requests)
    statuses = [answer.status_code for answer in answers]
    assert statuses.count(200) == 5
    assert statuses.count(503) == 11
    for answer in answers:
        if answer.status_code == 503:
            assert answer.json()["code"] == "overloaded"
            assert int(answer.headers["Retry-After"]) >= 1
        else:
            assert lines_of(answer.text)[-1]["finish_reason"] == "stop"


async def test_tokens_that_come_in_one_go_are_no_slow_reader(tmp_path: Path) -> None:
    async with serving(tmp_path, CHAT, stream_buffer_tokens=8) as client:
        whole = await client.post("/chat", json={"query": "w " * 2000})
        streamed = await client.post("/chat/stream", json={"query": "w " * 2000})
    assert whole.json()["usage"]["completion_tokens"] == 2000
    assert lines_of(streamed.text)[-1]["finish_reason"] == "stop"


async def open_stream(app: FastAPI, text: str, **options: Any) -> StreamResponse:
    runtime = app.state.runtime
    model = options.pop("model", "echo")
    return StreamResponse(
        ChatService(runtime.registry, buffer_tokens=options.pop("buffer_tokens", 8)),
        Conversation(messages=[Message(role="user", content=text)], model_name=model),
        deadline=Deadline.after(options.pop("timeout_s", 30)),
        dialect=options.pop("dialect", None) or NdjsonDialect(path="/chat/stream", request_id="r"),
        **options,
    )


class Reader:
    """Takes what is sent, when it is told to."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.started = asyncio.Event()
        self.pieces: list[bytes] = []

    async def send(self, message: Any) -> None:
        self.started.set()
        if message["type"] == "http.response.body":
            await self.reads.wait()
            self.pieces.append(message["body"])

    @property
    def lines(self) -> Lines:
        return lines_of(b"".join(self.pieces).decode())


async def never() -> Any:
    await asyncio.Event().wait()


async def test_silence_is_filled_with_lines_without_text(tmp_path: Path) -> None:
    app, reader = make_app(tmp_path, CHAT), Reader()
    reader.reads.set()
    async with running(app):
        response = await open_stream(app, "a b c", model="slow", heartbeat_s=0.005)
        await response({"type": "http"}, never, reader.send)
    lines = reader.lines
    assert {"token": ""} in lines[1:-1]
    assert "".join(line["token"] for line in lines) == "a b c"


async def test_each_piece_holds_whole_lines_and_all_that_had_come(tmp_path: Path) -> None:
    app, reader = make_app(tmp_path, CHAT), Reader()
    async with running(app):
        response = await open_stream(app, "w " * 40, buffer_tokens=100)
        sent = asyncio.create_task(response({"type": "http"}, never, reader.send))
        await reader.started.wait()
        while metric(app, "inter_token_seconds_count", model="echo") != 39:
            await asyncio.sleep(0.01)
        reader.reads.set()
        await sent
    assert all(piece.endswith(b"\n") for piece in reader.pieces if piece)
    assert len(reader.pieces) <= 4
    assert len(reader.lines) == 41


async def test_the_log_says_what_was_generated_and_nothing_of_the_text(
    client: AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    await client.post(
        "/chat/stream", json={"query": "secret words"}, headers={"X-Request-ID": "abc"}
    )
    await client.post("/chat", json={"query": "secret words", "model_name": "broken"})
    done = next(r for r in caplog.records if r.message == "generation_done")
    fields = vars(done)
    assert (fields["model"], fields["end"]) == ("echo", "stop")
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (2, 2)
    assert "secret" not in caplog.text


async def test_tokens_are_counted_and_timed(tmp_path: Path) -> None:
    app = make_app(tmp_path, CHAT)
    async with running(app) as client:
        await client.post("/chat", json={"query": "a b c", "model_name": "slow"})
        assert metric(app, "tokens_total", model="slow", kind="prompt") == 3
        assert metric(app, "tokens_total", model="slow", kind="completion") == 3
        assert metric(app, "inter_token_seconds_count", model="slow") == 2
        assert metric(app, "time_to_first_token_seconds_count", model="slow") == 1
        assert metric(app, "tokens_per_second_count", model="slow") == 1
        assert metric(app, "generations_total", model="slow", end="stop") == 1


def test_without_chat_models_langchain_is_not_imported() -> None:
    import subprocess
    import sys

    code = "import sys, app.main; print(sorted(m for m in sys.modules if 'langchain' in m))"
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "[]"


def models(response: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {model["name"]: model for model in response}


async def test_models_lists_chat_models_with_their_engine(client: AsyncClient) -> None:
    listed = models((await client.get("/models")).json()["models"])
    assert (listed["echo"]["task"], listed["echo"]["engine"]) == ("chat", "fake")
    assert listed["echo"]["default"] is True
