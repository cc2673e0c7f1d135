"""Readers that leave, lag or stop, and threads that are stuck: nothing is lost, nobody waits."""

import asyncio
import json
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from serving import make_app, running
from test_chat import CHAT, Reader, metric, never, open_stream
from test_disconnect import Client, scope

from app.batching.deadline import Deadline
from app.engines.chain import ChatChain
from app.engines.chat import LocalChat
from app.engines.chat_base import Generation, GenerationOptions, Message, OnToken
from app.errors import DeadlineExceededError, OptionsRefusedError
from app.services.streaming import ChatService, Conversation


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_client_that_leaves_stops_its_generation(tmp_path: Path, path: str) -> None:
    app = make_app(tmp_path, CHAT)
    body = {"query": "w " * 1000, "model_name": "slow"}
    leaver = Client(json.dumps(body).encode())
    async with running(app) as client:
        before = asyncio.all_tasks()
        task = asyncio.create_task(app(scope(path), leaver.receive, leaver.send))
        while not metric(app, "time_to_first_token_seconds_count", model="slow"):
            await asyncio.sleep(0.01)  # what it waits for shows only in the metrics
        leaver.left.set()
        await task
        assert metric(app, "generations_active", model="slow") == 0
        assert metric(app, "generations_total", model="slow", end="client_left") == 1
        assert metric(app, "cancelled_total", model="slow", stage="engine") == 1
        assert not asyncio.all_tasks() - before
        # Its thread is free again with the next token: both slots take new generations.
        again = {"query": "one", "model_name": "slow"}
        answers = await asyncio.gather(*(client.post("/chat", json=again) for _ in range(2)))
    assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_client_that_leaves_stops_all_answers(tmp_path: Path, *, is_streamed: bool) -> None:
    app = make_app(tmp_path, CHAT)
    asked = [{"role": "user", "content": "w " * 1000}]
    body = {"messages": asked, "model": "slow", "n": 2, "stream": is_streamed}
    leaver = Client(json.dumps(body).encode())
    async with running(app):
        before = asyncio.all_tasks()
        path = "/v1/chat/completions"
        task = asyncio.create_task(app(scope(path), leaver.receive, leaver.send))
        while metric(app, "time_to_first_token_seconds_count", model="slow") < 2:
            await asyncio.sleep(0.01)  # what it waits for shows only in the metrics
        leaver.left.set()
        await task
        assert metric(app, "generations_active", model="slow") == 0
        assert metric(app, "generations_total", model="slow", end="client_left") == 2
        assert not asyncio.all_tasks() - before


async def test_a_reader_slower_than_the_bound_is_told_and_slows_nobody(tmp_path: Path) -> None:
    app, reader = make_app(tmp_path, CHAT), Reader()
    async with running(app) as client:
        response = await open_stream(app, "w " * 500)
        sent = asyncio.create_task(response({"type": "http"}, never, reader.send))
        await reader.started.wait()
        assert (await client.post("/chat", json={"query": "quick"})).status_code == 200
        while metric(app, "generations_active", model="echo"):
            await asyncio.sleep(0.01)  # its place is free before the reader has read
        reader.reads.set()
        await sent
        assert metric(app, "generations_total", model="echo", end="reader_too_slow") == 1
    *tokens, last = reader.lines
    assert 8 <= len(tokens) < 500
    assert last["error"]["code"] == "reader_too_slow"


async def test_a_reader_that_takes_nothing_is_let_go(tmp_path: Path) -> None:
    app, reader = make_app(tmp_path, CHAT), Reader()
    async with running(app):
        response = await open_stream(app, "w " * 500, send_timeout_s=0.01)
        sent = asyncio.create_task(response({"type": "http"}, never, reader.send))
        async with asyncio.timeout(10):
            await asyncio.gather(sent, return_exceptions=True)
        assert metric(app, "generations_active", model="echo") == 0


async def test_a_server_that_shuts_down_says_so_in_the_last_line(tmp_path: Path) -> None:
    app, reader = make_app(tmp_path, CHAT), Reader()
    reader.reads.set()
    async with running(app):
        response = await open_stream(app, "w " * 100, model="slow")
        sent = asyncio.create_task(response({"type": "http"}, never, reader.send))
        await reader.started.wait()
        sent.cancel("timeout graceful shutdown exceeded")  # as uvicorn does
        with pytest.raises(asyncio.CancelledError):
            await sent
        assert metric(app, "generations_total", model="slow", end="shutdown") == 1
        assert metric(app, "cancelled_total", model="slow", stage="engine") == 0
    assert reader.lines[-1]["error"]["code"] == "not_ready"


class StuckGenerator:
    """Says one token, and then nothing until it is told to."""

    kind, device, context_tokens = "stuck", "none", 100

    def __init__(self, first: str = "one") -> None:
        self.go = threading.Event()
        self.checked_in: int | None = None  # which thread, the last time
        self._first = first

    def check(self, options: GenerationOptions) -> None:
        self.checked_in = threading.get_ident()
        if options.response_format is not None:
            raise OptionsRefusedError

    def generate(self, _messages: Any, _options: Any, *, on_token: OnToken) -> Generation:
        on_token(self._first)
        assert self.go.wait(30)
        is_left = on_token("two")
        return Generation(text="one", finish_reason="cancelled" if is_left else "stop", usage=None)

    def close(self) -> None:
        """Nothing is held."""


def serve_generator(app: FastAPI, generator: StuckGenerator) -> Any:
    """Put a generator of the test behind the default model; return the registry's entry."""
    entry = app.state.runtime.registry.entries[0]
    engine = LocalChat(generator, name="echo")
    entry.served.model.engine = engine
    entry.served.model.chain = ChatChain(engine, system_prompt=None)
    return entry


async def test_a_thread_that_is_stuck_keeps_its_place_and_its_reader_is_told_in_time(
    tmp_path: Path,
) -> None:
    app, generator, reader = make_app(tmp_path, CHAT), StuckGenerator(), Reader()
    reader.reads.set()
    async with running(app) as client:
        entry = serve_generator(app, generator)
        response = await open_stream(app, "a", timeout_s=1.0)
        await response({"type": "http"}, never, reader.send)
        token, last = reader.lines
        assert token == {"token": "one"}
        assert last["error"]["code"] == "deadline_exceeded"
        assert metric(app, "generations_active", model="echo") == 1
        slot = next(iter(entry.served.model._running))
        slot.progress_s -= 1000
        assert (await client.get("/health")).status_code == 503
        generator.go.set()
        while metric(app, "generations_active", model="echo"):
            await asyncio.sleep(0.01)
        assert (await client.get("/health")).status_code == 200


async def test_options_that_are_refused_wait_for_no_place(tmp_path: Path) -> None:
    app, generator = make_app(tmp_path, CHAT), StuckGenerator()
    async with running(app):
        entry = serve_generator(app, generator)
        chat = ChatService(app.state.runtime.registry, buffer_tokens=8)
        conversation = Conversation(messages=[Message(role="user", content="a")])
        odd = replace(conversation, options=GenerationOptions(response_format={"type": "odd"}))
        async with AsyncExitStack() as held:
            for _ in range(entry.spec.slots):
                await held.enter_async_context(chat.open(conversation, deadline=Deadline.after(30)))
            assert generator.checked_in == threading.get_ident()
            with pytest.raises(OptionsRefusedError):
                await chat.answer(odd, deadline=Deadline.after(30))
            # Schemas may be large: those of a hundred tools take a quarter of a second.
            assert generator.checked_in != threading.get_ident()
            assert metric(app, "generations_active", model="echo") == entry.spec.slots
            generator.go.set()
        assert (entry.leases, metric(app, "generations_active", model="echo")) == (0, 0)


async def test_a_stuck_thread_is_let_go_when_it_ends_though_its_reader_was_busy_at_the_deadline(
    tmp_path: Path,
) -> None:
    app, generator, reader = make_app(tmp_path, CHAT), StuckGenerator(), Reader()
    async with running(app):
        entry = serve_generator(app, generator)
        response = await open_stream(app, "a", timeout_s=1.0)
        sent = asyncio.create_task(response({"type": "http"}, never, reader.send))
        await reader.started.wait()
        (generation,) = entry.served.model._tasks
        while not generation.cancelling():
            await asyncio.sleep(0.01)  # the deadline is told to nobody else
        reader.reads.set()
        await sent
        assert reader.lines[-1]["error"]["code"] == "deadline_exceeded"
        assert generation.cancelling() == 1
        assert (entry.leases, metric(app, "generations_active", model="echo")) == (1, 1)
        assert not generation.done()
        generator.go.set()
        await asyncio.wait({generation})
        assert (entry.leases, metric(app, "generations_active", model="echo")) == (0, 0)
        assert entry.served.model._tasks == set()
        assert metric(app, "generations_total", model="echo", end="deadline") == 1


@pytest.mark.parametrize("timeout_s", [0, 30])
async def test_a_generation_that_ends_before_its_first_step_leaves_nothing_behind(
    tmp_path: Path, timeout_s: float
) -> None:
    app = make_app(tmp_path, CHAT)
    async with running(app) as client:
        runtime = app.state.runtime
        entry = runtime.registry.entries[0]
        chat = ChatService(runtime.registry, buffer_tokens=8)
        conversation = Conversation(messages=[Message(role="user", content="a")])
        for _ in range(entry.spec.slots + 1):
            async with chat.open(conversation, deadline=Deadline.after(timeout_s)):
                assert (entry.leases, metric(app, "generations_active", model="echo")) == (1, 1)
            assert (entry.leases, metric(app, "generations_active", model="echo")) == (0, 0)
        assert entry.served.model._tasks == set()
        assert (await client.post("/chat", json={"query": "a"})).status_code == 200


async def test_a_deadline_that_has_passed_leaves_nothing_behind(tmp_path: Path) -> None:
    app = make_app(tmp_path, CHAT)
    async with running(app):
        runtime = app.state.runtime
        chat = ChatService(runtime.registry, buffer_tokens=8)
        conversation = Conversation(
            messages=[Message(role="user", content="a b")], model_name="slow"
        )
        for _ in range(3):
            with pytest.raises(DeadlineExceededError):
                await chat.answer(conversation, deadline=Deadline.after(0))
        entry = next(e for e in runtime.registry.entries if e.spec.name == "slow")
        assert (entry.leases, metric(app, "generations_active", model="slow")) == (0, 0)
        assert metric(app, "generations_total", model="slow", end="deadline") == 3


async def test_tokens_of_those_who_left_or_were_cut_are_counted(tmp_path: Path) -> None:
    app, reader = make_app(tmp_path, CHAT), Reader()
    reader.reads.set()
    cut = {"query": "a b c d", "model_name": "broken"}
    async with running(app) as client:
        response = await open_stream(app, "w " * 100, model="slow")
        sent = asyncio.create_task(response({"type": "http"}, never, reader.send))
        while metric(app, "inter_token_seconds_count", model="slow") < 2:
            await asyncio.sleep(0.01)
        sent.cancel()
        await asyncio.wait({sent})
        said = 1 + metric(app, "inter_token_seconds_count", model="slow")
        assert metric(app, "tokens_total", model="slow", kind="completion") == said
        assert metric(app, "tokens_per_second_count", model="slow") == 1

        await client.post("/chat", json=cut)
        assert metric(app, "tokens_total", model="broken", kind="completion") == 2
        assert metric(app, "generations_total", model="broken", end="failed") == 1

        headers = {"X-Request-Timeout-Ms": "150"}
        late = {"query": "w " * 50, "model_name": "slow"}
        answer = await client.post("/chat/stream", json=late, headers=headers)
        tokens = len(answer.text.splitlines()) - 1
        assert tokens > 0
        assert metric(app, "tokens_total", model="slow", kind="completion") == said + tokens
