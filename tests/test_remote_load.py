"""The remote engine alone: what it needs to load, what of the environment it heeds and frees."""

import asyncio
import gc
import json
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from openai_misbehaviours import refuse, send_error, then, wait_after
from openai_server import PROVIDER_WORDS, Exchange, OpenAiServer, chunk, say
from process import UNMEASURED, Service, service
from serving import serving

from app.engines.base import EngineRequest, Task
from app.engines.chain import ChatChain
from app.engines.chat_base import ChatOptions, Generation, GenerationOptions, Message
from app.engines.remote import RemoteChat, load
from app.engines.remote_errors import explain
from app.engines.tool_calls import Piece
from app.errors import EngineError, UpstreamUnreachableError

KEY = "sk-a-very-secret-key"
FOREIGN = "sk-of-somebody-else"
HI = [Message(role="user", content="hi")]
# What OpenAI's and LangChain's clients read, pointing elsewhere.
ENVIRONMENT = {
    "OPENAI_API_KEY": FOREIGN,
    "OPENAI_ADMIN_KEY": FOREIGN,
    "OPENAI_BASE_URL": "http://127.0.0.1:1/elsewhere",
    "OPENAI_API_BASE": "http://127.0.0.1:1/elsewhere",
    "OPENAI_ORG_ID": "org-of-somebody",
    "OPENAI_ORGANIZATION": "org-of-somebody",
    "OPENAI_PROJECT_ID": "project-of-somebody",
    "OPENAI_CUSTOM_HEADERS": f"X-Custom: yes\nAuthorization: Bearer {FOREIGN}",
    "OPENAI_PROXY": "http://127.0.0.1:1",
    "LANGSMITH_GATEWAY": "http://127.0.0.1:1",
    "LANGSMITH_API_KEY": FOREIGN,
    "LC_OUTPUT_VERSION": "v1",
    "LANGCHAIN_OPENAI_STREAM_CHUNK_TIMEOUT_S": "0.001",
}


def request(base_url: str | None, *, source: str = "openai:gpt-test", **chat: Any) -> EngineRequest:
    given = {"slots": 2, "context_tokens": 100, "api_key": KEY, **chat}
    return EngineRequest(
        name="remote",
        task=Task.CHAT,
        engine="remote",
        chat=ChatOptions(source=source, base_url=base_url, **given),
    )


async def run(
    engine: RemoteChat, options: GenerationOptions | None = None
) -> tuple[Generation, Sequence[Piece]]:
    """Run one conversation; return its end and its tokens."""
    chain = ChatChain(engine, system_prompt=None)
    tokens = chain.queue(bound=100, on_token=lambda: None)
    generation = await chain.run(HI, options or GenerationOptions(), tokens=tokens)
    tokens.end()
    return generation, await tokens.drain()


@asynccontextmanager
async def loaded(made: EngineRequest) -> AsyncIterator[RemoteChat]:
    engine = load(made)
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)


# Loading


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (request("http://127.0.0.1:1", source="gpt-4o-mini"), "provider:model"),
        (request("http://127.0.0.1:1", source=":gpt"), "provider:model"),
        (request("http://127.0.0.1:1", source="openai:"), "provider:model"),
        (request(None, source="anthropic:claude"), "langchain-anthropic"),
        (request(None, source="nobody:model"), "nobody:model"),
        (request(None, api_key=None), "api_key_env"),
        (request("127.0.0.1:8000/v1"), "base_url"),
        (request("ftp://127.0.0.1/v1"), "base_url"),
        (request("http:///v1"), "base_url"),
        (request("http://127.0.0.1:port/v1"), "base_url"),
        (request("http://me:secret@127.0.0.1/v1"), "base_url"),
        (request(None, api_key="sk-secret\n"), "ASCII"),
        (request(None, api_key="sk-secr\xe9t"), "ASCII"),
        (replace(request(None), task=Task.EMBEDDING), "chat models only"),
        (replace(request(None), chat=None), "chat models only"),
    ],
)
def test_an_entry_that_can_not_work_is_one_readable_line(made: EngineRequest, message: str) -> None:
    with pytest.raises(EngineError) as raised:
        load(made)
    assert message in str(raised.value)
    assert "secr" not in str(raised.value)


async def test_a_key_whose_variable_is_not_set_is_a_failure_that_names_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = '[[models]]\nname = "r"\ntask = "chat"\nengine = "remote"\n'
    entry += 'source = "openai:gpt-test"\napi_key_env = "NO_SUCH_VARIABLE"\n'
    async with serving(tmp_path, entry) as client:
        answered = await client.post("/chat", json={"query": "hi"})
    assert (answered.status_code, answered.json()["code"]) == (503, "model_unavailable")
    (failed,) = [record for record in caplog.records if record.message == "model_failed"]
    message = "the environment variable NO_SUCH_VARIABLE (api_key_env) is not set"
    assert vars(failed)["reason"] == message


def test_loading_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, address: asked.append(address))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: asked.append(given))
    load(request("http://model.example/v1"))
    load(request(None))
    assert asked == []


# What is sent


async def test_the_entry_decides_what_is_sent_and_not_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with OpenAiServer() as server:
        async with loaded(request(server.url)) as engine:
            made, tokens = await run(engine)
        async with loaded(request(server.url, api_key=None)) as engine:
            await run(engine)
    with_key, without = server.requests
    assert (made.text, tokens) == ("Hello wide world", ["Hello", " wide", " world"])
    assert with_key.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in without.headers
    allowed = {"accept", "accept-encoding", "connection", "content-type", "content-length"}
    allowed |= {"host", "user-agent"}
    assert set(with_key.headers) == allowed | {"authorization"}
    assert set(without.headers) == allowed
    assert without.headers["accept-encoding"] == "identity"


async def test_the_address_of_openai_itself_is_not_the_environments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    model: Any = load(request(None)).chat_model
    assert str(model.root_async_client.base_url) == "https://api.openai.com/v1/"


async def test_the_usual_proxy_variables_work_as_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with OpenAiServer() as proxy, OpenAiServer() as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        async with loaded(request("http://model.example/v1")) as engine:
            await run(engine)
        assert [asked.path for asked in proxy.requests] == [
            "http://model.example/v1/chat/completions"
        ]
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        async with loaded(request(server.url)) as engine:
            await run(engine)
    assert (len(proxy.requests), len(server.requests)) == (1, 1)


async def test_a_response_format_is_passed_on_and_a_cut_answer_is_no_failure() -> None:
    schema = {"type": "number", "multipleOf": 3, "not": {"const": 9}}  # llama.cpp holds none of it
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    options = GenerationOptions(response_format=wanted, max_tokens=2)
    with OpenAiServer(say('{"a"', ":", finish_reason="length")) as server:
        async with loaded(request(server.url)) as engine:
            engine.check(options)
            made, _ = await run(engine, options)
    assert server.requests[0].body["response_format"] == wanted
    assert (made.text, made.finish_reason) == ('{"a":', "length")


async def test_cached_tokens_are_told() -> None:
    with OpenAiServer() as server:
        async with loaded(request(server.url)) as engine:
            made, _ = await run(engine)
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.cached_tokens) == (9, 4)


async def test_a_server_that_falls_silent_is_taken_for_dead() -> None:
    with OpenAiServer(wait_after("a")) as server:
        async with loaded(request(server.url, timeout_s=0.1)) as engine:
            with pytest.raises(Exception) as raised:  # noqa: PT011  # LangChain's, explained below
                await run(engine)
            explained = engine.explain(raised.value)
    assert isinstance(explained.error, UpstreamUnreachableError)
    assert not explained.is_transient


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"stop_reason": "end_turn", "stop_sequence": None}, "stop"),
        ({"stop_reason": "stop_sequence"}, "stop"),
        ({"stop_reason": "max_tokens"}, "length"),
        ({"done_reason": "length", "done": True}, "length"),
        ({"finish_reason": "STOP"}, "stop"),
        ({"finish_reason": "content_filter"}, "content_filter"),
    ],
)
async def test_other_providers_reasons_are_told_in_openais_words(
    metadata: dict[str, Any], reason: str
) -> None:
    message = AIMessage("hello", response_metadata=metadata)
    model = GenericFakeChatModel(messages=iter([message]))
    made, _ = await run(RemoteChat(model, provider="other", connections=None))
    assert (made.text, made.finish_reason, made.usage) == ("hello", reason, None)


async def test_a_reason_that_is_told_twice_is_told_once() -> None:
    def twice(exchange: Exchange) -> None:
        exchange.begin()
        exchange.tokens("a")
        exchange.event(chunk({}, finish_reason="stop"))
        exchange.finish()

    with OpenAiServer(twice) as server:
        async with loaded(request(server.url)) as engine:
            made, _ = await run(engine)
    assert made.finish_reason == "stop"


async def test_nobody_is_told_of_a_conversation_but_its_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LANGSMITH_API_KEY", FOREIGN)
    monkeypatch.delenv("LANGSMITH_TRACING", raising=False)
    asked: list[object] = []
    look_up = socket.getaddrinfo

    def listen(host: Any, *given: Any, **named: Any) -> Any:
        asked.append(host)
        return look_up(host, *given, **named)

    monkeypatch.setattr(socket, "getaddrinfo", listen)
    with OpenAiServer() as server:
        async with loaded(request(server.url)) as engine:
            await run(engine)
            names = [thread.name for thread in threading.enumerate()]
    assert set(asked) <= {"127.0.0.1"}
    assert not [name for name in names if "tracing" in name.lower() or "smith" in name.lower()]


@pytest.mark.parametrize(
    ("failure", "code", "is_transient"),
    [
        (ConnectionResetError("secret"), "upstream_unreachable", True),
        (TimeoutError("secret"), "upstream_unreachable", False),
        (KeyError("secret"), "upstream_failed", False),
        (httpx2.ReadError("secret"), "upstream_unreachable", True),
    ],
)
def test_what_no_integration_translates_has_a_meaning_too(
    failure: Exception, code: str, *, is_transient: bool
) -> None:
    explained = explain(failure)
    assert (explained.error.code, explained.is_transient) == (code, is_transient)
    assert "secret" not in str(explained)


# What is left behind


async def test_closing_closes_idle_connections_and_leaves_nothing_open() -> None:
    with OpenAiServer() as server:
        engine = load(request(server.url))
        await run(engine)
        assert len(server.connections) == 1  # kept for the next one
        await asyncio.to_thread(engine.close)
        assert await asyncio.to_thread(server.ended.wait, 5)
        assert server.connections == set()
    del engine
    gc.collect()  # a socket left open would warn, and a warning fails


async def test_connections_are_used_again() -> None:
    with OpenAiServer() as server:
        async with loaded(request(server.url)) as engine:
            for _ in range(3):
                await run(engine)
            assert len(server.requests) == 3
            assert server.accepted == 1


def test_engines_of_two_event_loops_do_not_share_connections() -> None:
    with OpenAiServer() as server:

        async def once() -> None:
            async with loaded(request(server.url)) as engine:
                await run(engine)

        asyncio.run(once())
        asyncio.run(once())
    assert len(server.requests) == 2


# The real process


@pytest.fixture
def real(tmp_path: Path) -> Any:
    """A service at its most talkative, with an environment that points elsewhere."""
    with OpenAiServer() as server:
        entry = '[[models]]\nname = "r"\ntask = "chat"\nengine = "remote"\nrequired = true\n'
        entry += f'source = "openai:gpt-test"\nbase_url = "{server.url}"\napi_key_env = "K"\n'
        talkative = {"log_level": "debug", "k": KEY, "openai_log": "debug"}
        with service(tmp_path, entry, **talkative, **ENVIRONMENT, **UNMEASURED) as running:
            running.wait_ready()
            yield running, server


def test_no_log_line_of_a_debugging_service_tells_key_host_or_words(
    real: tuple[Service, OpenAiServer],
) -> None:
    running, server = real
    server.behave(say("a"), refuse(401), refuse(429), then("a", last=send_error))
    statuses = [
        httpx2.post(f"{running.url}/chat/stream", json={"query": "my-own-words"}).status_code
        for _ in range(4)
    ]
    assert statuses == [200, 502, 503, 200]
    assert running.stop() == 0
    log = running.log
    assert [json.loads(line)["event"] for line in log.splitlines()].count("generation_done") == 4
    metadata = (KEY, FOREIGN, PROVIDER_WORDS, f":{server.port}", str(server.port), "my-own-words")
    assert [secret for secret in metadata if secret in log] == []
