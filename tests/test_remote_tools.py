"""Tools of remote models: the server gets what the client sent, the client what the server said."""

import json
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.runnables import Runnable
from openai_server import USAGE, Behaviour, Exchange, OpenAiServer, chunk
from serving import serving
from test_remote import KEY_VARIABLE, models

from app.engines.chat_base import GenerationOptions
from app.engines.remote import RemoteChat
from app.errors import OptionsRefusedError

CHAT = "/v1/chat/completions"
# Spaces, escapes and an order that a parser would lose; one isn't JSON.
ODD = '{"b" : 1,\n "a":"\\u00e9",  "b": 2}'
CALLS = [
    {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": ODD}},
    {"id": "call_b", "type": "function", "function": {"name": "look", "arguments": "{not JSON"}},
]
HISTORY = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "tool_call_id": "call_a", "content": "Sunny"},
    {"role": "tool", "tool_call_id": "call_b", "content": [{"type": "text", "text": "x"}]},
    {"role": "user", "content": "And now?", "name": "ann"},
]
SCHEMA = {
    "type": "object",
    "properties": {"b": {"type": "string", "pattern": "^(a+)+$"}, "a": {"format": "date"}},
    "required": ["b"],
    "additionalProperties": True,
}
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": SCHEMA, "strict": False}},
    {"type": "function", "function": {"description": "é", "name": "wait"}},
]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "sk-key")


def part(index: int | None, arguments: str, **start: Any) -> dict[str, Any]:
    function = {"arguments": arguments}
    if "name" in start:
        function["name"] = start.pop("name")
    number = {} if index is None else {"index": index}
    return {**number, **start, "function": function}


def deltas(*parts: list[dict[str, Any]], reason: str = "tool_calls") -> Behaviour:
    """Answer with calls of tools, a chunk for each list."""

    def behave(exchange: Exchange) -> None:
        exchange.begin()
        exchange.event(chunk({"role": "assistant", "content": None}))
        for calls in parts:
            exchange.event(chunk({"tool_calls": calls}))
        exchange.finish(finish_reason=reason)

    return behave


TWO = deltas(
    [part(0, "", id="call_x", type="function", name="look")],
    [part(0, '{"b" : ')],
    [part(0, '"\\ud83d')],  # half of a character; the other half comes with the next
    [part(0, "\\ude00 \ud83d")],
    [part(0, '\ude00"}')],
    [part(1, "{}", id="call_y", type="function", name="wait")],
)
LOOKED = '{"b" : "\\ud83d\\ude00 \U0001f600"}'


async def ask(
    tmp_path: Path, *behaviours: Behaviour, more: str = "", **body: Any
) -> tuple[Response, OpenAiServer]:
    asked = {"model": "remote", "messages": HISTORY, "tools": TOOLS, **body}
    with OpenAiServer(*behaviours) as server:
        async with serving(tmp_path, models(server, more)) as client:
            response = await client.post(CHAT, json=asked)
    return response, server


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"tool_choice": "none", "parallel_tool_calls": True},
        {"tool_choice": {"type": "function", "function": {"name": "wait"}}},
        {
            "tool_choice": {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "look"}}],
                },
            },
            "parallel_tool_calls": False,
        },
    ],
)
async def test_the_server_gets_what_was_sent(tmp_path: Path, choice: dict[str, Any]) -> None:
    wish = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": False}}
    _, server = await ask(tmp_path, TWO, response_format=wish, stop=["x"], **choice)
    (request,) = server.requests
    sent = {"messages": HISTORY, "tools": TOOLS, "response_format": wish, **choice}
    # As text: in this order, with these spaces in arguments.
    assert json.dumps({name: request.body[name] for name in sent}) == json.dumps(sent)
    assert request.body.keys() - sent.keys() == {"model", "stream", "stream_options", "stop"}


async def test_the_entry_s_system_prompt_comes_before_what_was_sent(tmp_path: Path) -> None:
    prompt = 'system_prompt = "Be kind."'
    own = [{"role": "developer", "content": "Be brief."}, HISTORY[-1]]
    for messages, first in ((HISTORY[1:], "Be kind."), (own, "Be brief.")):
        _, server = await ask(tmp_path, TWO, more=prompt, messages=messages)
        sent = server.requests[0].body["messages"]
        assert sent[0] == {"role": "system", "content": first}
        assert sent[-1] == messages[-1]


async def test_the_client_gets_the_calls_as_the_server_wrote_them(tmp_path: Path) -> None:
    answer, _ = await ask(tmp_path, TWO)
    (choice,) = answer.json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == [
        {"id": "call_x", "type": "function", "function": {"name": "look", "arguments": LOOKED}},
        {"id": "call_y", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
    ]
    assert answer.json()["usage"]["total_tokens"] == USAGE["total_tokens"]


async def test_pieces_of_calls_are_passed_on_as_they_come(tmp_path: Path) -> None:
    answer, _ = await ask(tmp_path, TWO, stream=True)
    lines = answer.text.split("\n\n")[:-2]
    choices = [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines]
    pieces = [each for choice in choices for each in choice["delta"].get("tool_calls", ())]
    assert pieces[0] == part(0, "", id="call_x", type="function", name="look")
    assert pieces[-1] == part(1, "{}", id="call_y", type="function", name="wait")
    looked = [piece["function"]["arguments"] for piece in pieces[1:-1]]
    assert "".join(looked) == LOOKED
    assert len(looked) == 4
    assert choices[-1]["finish_reason"] == "tool_calls"


async def test_calls_without_numbers_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    first = part(None, "{", id="call_x", type="function", name="look")
    second = part(None, "{}", id="call_y", type="function", name="wait")
    answer, _ = await ask(tmp_path, deltas([first], [part(None, "}")], [second]))
    (choice,) = answer.json()["choices"]
    calls = [(call["id"], call["function"]) for call in choice["message"]["tool_calls"]]
    assert calls == [
        ("call_x", {"name": "look", "arguments": "{}"}),
        ("call_y", {"name": "wait", "arguments": "{}"}),
    ]


async def test_calls_that_are_announced_and_dont_come_are_the_server_s_failure(
    tmp_path: Path,
) -> None:
    answer, _ = await ask(tmp_path, deltas())
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")


class Bound(FakeListChatModel):
    """Another provider's model: LangChain converts tools for it."""

    responses: list[str] = ["x"]  # noqa: RUF012  # a field of Pydantic

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Runnable:  # type: ignore[type-arg]  # of anything
        return self.bind(tools=[tool["function"]["name"] for tool in tools], choice=tool_choice)


def arguments(chat_model: FakeListChatModel, choice: Any) -> dict[str, Any]:
    remote = RemoteChat(chat_model, provider="other", connections=None)
    options = GenerationOptions(tools=tuple(TOOLS), tool_choice=choice, max_tokens=5)
    return remote.arguments(options, [])


def test_other_providers_get_tools_as_langchain_converts_them() -> None:
    one = {"type": "function", "function": {"name": "wait"}}
    both = ["look", "wait"]
    assert arguments(Bound(), None) == {"max_tokens": 5, "tools": both, "choice": None}
    assert arguments(Bound(), "required") == {"max_tokens": 5, "tools": both, "choice": "any"}
    assert arguments(Bound(), one) == {"max_tokens": 5, "tools": ["wait"], "choice": "wait"}
    assert arguments(Bound(), "none") == {"max_tokens": 5}


def test_a_provider_without_tools_refuses_them() -> None:
    with pytest.raises(OptionsRefusedError) as refused:
        arguments(FakeListChatModel(responses=["x"]), None)
    assert refused.value.extensions == {"field": "tools"}
