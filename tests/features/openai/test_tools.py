"""Tools in OpenAI's dialect: what is taken, refused and answered, on the fake model."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx2 import AsyncClient, Response
from serving import serving
from test_openai import CHAT, check_error, events

MODELS = '[[models]]\nname = "echo"\ntask = "chat"\nengine = "fake"\n'
ASKED = [{"role": "user", "content": '{"city": "Paris", "days": 3}'}]


def tool(name: str, **more: Any) -> dict[str, Any]:
    city = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": city, **more}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [named(name) for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": "{}"},
}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"}
WEATHER, TIME = tool("weather", strict=True), tool("time", description="Now.")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    async with serving(tmp_path_factory.mktemp("tools"), MODELS) as client:
        yield client


async def ask(client: AsyncClient, **body: Any) -> Response:
    return await client.post(CHAT, json={"model": "echo", "messages": ASKED, **body})


async def called(client: AsyncClient, **body: Any) -> dict[str, Any]:
    """Return the one choice of an answer."""
    answer = await ask(client, tools=[WEATHER, TIME], **body)
    assert answer.status_code == 200, answer.text
    (choice,) = answer.json()["choices"]
    return dict(choice)


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ("required", "weather"),
        (named("time"), "time"),
        (allowed("required", "time"), "time"),
    ],
)
async def test_a_call_that_has_to_be_is_whole_in_openai_s_shape(
    client: AsyncClient, choice: Any, name: str
) -> None:
    answer = await called(client, tool_choice=choice, parallel_tool_calls=False)
    message = answer["message"]
    (call,) = message.pop("tool_calls")
    assert message == {"role": "assistant", "content": None, "refusal": None}
    assert answer["finish_reason"] == "tool_calls"
    assert call.pop("id").startswith("call_")
    assert call == {
        "type": "function",
        "function": {"name": name, "arguments": ASKED[0]["content"]},
    }


@pytest.mark.parametrize("choice", [None, "none", "auto", allowed("auto", "time")])
async def test_an_answer_without_a_call_has_none(client: AsyncClient, choice: Any) -> None:
    answer = await called(client, tool_choice=choice)
    assert answer["finish_reason"] == "stop"
    assert answer["message"] == {
        "role": "assistant",
        "content": ASKED[0]["content"],
        "refusal": None,
    }


async def test_a_stream_names_the_call_and_then_brings_its_arguments(client: AsyncClient) -> None:
    wish = {"stream_options": {"include_usage": True}, "tool_choice": "required"}
    answer = await ask(client, tools=[WEATHER], stream=True, **wish)
    *chunks, usage = events(answer)
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": None}
    (first,) = choices[1]["delta"]["tool_calls"]
    assert first.pop("id").startswith("call_")
    start = {"name": "weather", "arguments": ""}
    assert first == {"index": 0, "type": "function", "function": start}
    pieces = [choice["delta"]["tool_calls"][0] for choice in choices[2:-1]]
    assert all(piece.keys() == {"index", "function"} for piece in pieces)
    assert len(pieces) > 1
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert json.loads(arguments) == {"city": "Paris", "days": 3}
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, "tool_calls")
    assert usage["usage"]["completion_tokens"] == 5


async def test_a_call_that_is_cut_says_so(client: AsyncClient) -> None:
    answer = await called(client, tool_choice="required", max_tokens=2)
    (call,) = answer["message"]["tool_calls"]
    assert (answer["finish_reason"], call["function"]["arguments"]) == ("length", '{"city":')


async def test_calls_and_results_in_the_history_count(client: AsyncClient) -> None:
    extra: dict[str, Any] = {"refusal": None, "annotations": [], "parsed": None, "audio": None}
    sent_back: dict[str, Any] = {
        **CALL,
        "index": 0,
        "function": {**CALL["function"], "parsed_arguments": {}},
    }
    history = [*ASKED, {**CALLED, **extra, "tool_calls": [sent_back]}, RESULT]
    answer = (await ask(client, messages=history, tools=[WEATHER])).json()
    assert answer["choices"][0]["message"]["content"] == ASKED[0]["content"]
    assert answer["usage"]["prompt_tokens"] == 7, "the question's words, name, arguments, result"
    parts = {**RESULT, "content": [{"type": "text", "text": "Sunny"}]}
    assert (await ask(client, messages=[*ASKED, CALLED, parts])).status_code == 200


UNIQUE = "Tool names must be unique: 'weather' is there twice"
ORPHAN = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": [tool("a b")]}, "tools[0].function.name", "String should match pattern"),
    ({"tools": [tool("x" * 65)]}, "tools[0].function.name", "String should have at most 64"),
    ({"tools": [tool("")]}, "tools[0].function.name", "String should match pattern"),
    ({"tools": [WEATHER, TIME, WEATHER]}, "tools", UNIQUE),
    ({"tools": [tool(f"f{n}") for n in range(129)]}, "tools", "List should have at most 128"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "Field required"),
    ({"tools": [tool("f", parameters=[])]}, "tools[0].function.parameters", "Input should be"),
    ({"tools": [WEATHER], "tool_choice": "any"}, "tool_choice", "Input should be 'none', 'auto'"),
    (
        {"tools": [WEATHER], "tool_choice": named("time")},
        "tool_choice",
        "Tool choice 'time' not found in 'tools' parameter",
    ),
    (
        {"tools": [WEATHER], "tool_choice": allowed("auto", "weather", "time")},
        "tool_choice",
        "Tool choice 'time' not found in 'tools' parameter",
    ),
    (
        {"tool_choice": "required"},
        "tool_choice",
        "'tool_choice' is only allowed when 'tools' are specified",
    ),
    ({"tools": [], "tool_choice": named("time")}, "tool_choice", "'tool_choice' is only allowed"),
    ({"parallel_tool_calls": "yes"}, "parallel_tool_calls", "Input should be a valid boolean"),
    ({"messages": [*ASKED, RESULT]}, "messages[1].role", ORPHAN),
    ({"messages": [RESULT, CALLED]}, "messages[0].role", ORPHAN),
    (
        {"messages": [*ASKED, CALLED, {**RESULT, "tool_call_id": "call_2"}]},
        "messages[2].role",
        ORPHAN,
    ),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "Field"),
    ({"messages": [CALLED, {**RESULT, "content": None}]}, "messages[1].content", "Field required"),
    (
        {"messages": [{"role": "assistant", "tool_calls": [{}]}]},
        "messages[0].tool_calls[0].id",
        "Field required",
    ),
    ({"messages": [{**ASKED[0], "tool_calls": [CALL]}]}, "messages[0].tool_calls", "only an"),
]


@pytest.mark.parametrize(("fields", "param", "words"), INVALID)
async def test_tools_that_make_no_sense_are_400_and_named(
    client: AsyncClient, fields: dict[str, Any], param: str, words: str
) -> None:
    for stream in (False, True):
        said = check_error(
            await ask(client, stream=stream, **fields), 400, "invalid_request", param
        )
        assert said.startswith(f"{param}: {words}")


@pytest.mark.parametrize("old", [{"functions": [{"name": "f"}]}, {"function_call": {"name": "f"}}])
async def test_the_old_form_of_tools_is_refused_with_a_hint(
    client: AsyncClient, old: dict[str, Any]
) -> None:
    said = check_error(await ask(client, **old), 400, "unsupported_field", next(iter(old)))
    assert "`tool" in said


async def test_the_own_routes_of_chat_know_no_tools(client: AsyncClient) -> None:
    answer = await client.post("/chat", json={"query": "hi", "tools": [WEATHER]})
    assert answer.status_code == 422
    messages = [{"role": "tool", "content": "x"}]
    assert (await client.post("/chat", json={"messages": messages})).status_code == 422
