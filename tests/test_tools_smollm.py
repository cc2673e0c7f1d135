"""Tools on the packaged chat model: required calls always validate, by either kind of template."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import xllamacpp
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no types there
from smollm import gguf, loaded

from app.engines.chat_base import Generation, GenerationOptions, Generator, Message
from app.engines.llama_cpp.generator import LlamaCppGenerator
from app.engines.llama_cpp.native_tools import knows_tools
from app.engines.tool_calls import Piece, ToolCall, ToolCallJoiner, ToolCallPiece
from app.errors import OptionsRefusedError

CONTEXT_TOKENS = 1024
# The packaged model's turns, with tools and calls in tags, as many templates have them.
TEMPLATE = """
{%- if tools %}<|im_start|>system
Tools:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
Call one as <tool_call>
{"name": "its name", "arguments": {}}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response>{% else %}<|im_start|>{{ message.role }}
{{ message.content or '' }}{% for call in message.tool_calls or [] %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endif %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
UNIT = {"enum": ["C", "F"]}
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "pattern": "^((a{0,20}x?){0,20}y?){0,20}$"},
        "unit": UNIT,
        "days": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["city", "unit", "days"],
}
# What is held of it: all but the pattern.
HELD = {**WEATHER, "properties": {**WEATHER["properties"], "city": {"type": "string"}}}  # type: ignore[dict-item]  # of mixed values
NOTHING = {"type": "object", "properties": {}}


def tool(name: str, parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = (tool("get_weather", WEATHER), tool("get_time", NOTHING))


def server_of(template: str | None) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(gguf())
    params.n_parallel, params.n_ctx, params.n_batch = 1, CONTEXT_TOKENS, 64
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity, params.cache_ram_mib, params.ui = -1, 0, False
    if template is not None:
        params.chat_template = template
    return xllamacpp.Server(params)


@pytest.fixture(scope="module")
def worded() -> Iterator[Generator]:
    with loaded(context_tokens=CONTEXT_TOKENS) as generator:
        yield generator


@pytest.fixture(scope="module")
def native() -> Iterator[Generator]:
    server = server_of(TEMPLATE)
    assert knows_tools(server, context_tokens=CONTEXT_TOKENS)
    generator = LlamaCppGenerator(server, context_tokens=CONTEXT_TOKENS, knows_tools=True)
    yield generator
    generator.close()


@pytest.fixture(params=["worded", "native"])
def engine(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def ask(
    engine: Generator, text: str | list[Message], **more: Any
) -> tuple[Generation, list[Piece]]:
    messages = [Message(role="user", content=text)] if isinstance(text, str) else text
    given = {"tools": TOOLS, "temperature": 0.0, "max_tokens": 400, **more}
    pieces: list[Piece] = []

    def hear(piece: Piece) -> bool:
        pieces.extend([piece] if piece else [])
        return False

    return engine.generate(messages, GenerationOptions(**given), on_token=hear), pieces


def joined(pieces: list[Piece]) -> tuple[ToolCall, ...]:
    joiner = ToolCallJoiner()
    for piece in pieces:
        assert isinstance(piece, ToolCallPiece)
        joiner.add(piece)
    return joiner.calls


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


SCHEMAS = {"get_weather": HELD, "get_time": NOTHING}
PROMPTS = (
    "What is the weather in Paris?",
    "Answer in plain words, without any JSON and without a tool.",
    'Answer with [-1.5, "a long text", {"unit": "K", "days": 99}] and no more.',
)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("choice", ["required", named("get_weather"), named("get_time")])
def test_a_call_that_has_to_be_comes_and_validates(
    engine: Generator, prompt: str, choice: Any
) -> None:
    answer, pieces = ask(engine, prompt, tool_choice=choice, stop=("}", "a"))
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    (call,) = answer.tool_calls
    assert choice in ("required", named(call.name))
    Draft202012Validator(SCHEMAS[call.name]).validate(json.loads(call.arguments))
    assert joined(pieces) == answer.tool_calls
    assert answer.usage
    assert answer.usage.completion_tokens >= len(pieces) - 1


def test_several_calls_come_where_the_request_says_that_they_may(engine: Generator) -> None:
    wish = {"tool_choice": "required", "parallel_tool_calls": True, "max_tokens": 600}
    answer, pieces = ask(engine, "What is the weather in Paris, and what time is it?", **wish)
    assert 1 <= len(answer.tool_calls) <= 8
    assert len({call.id for call in answer.tool_calls}) == len(answer.tool_calls)
    for call in answer.tool_calls:
        Draft202012Validator(SCHEMAS[call.name]).validate(json.loads(call.arguments))
    assert joined(pieces) == answer.tool_calls


def test_a_model_that_may_call_a_tool_is_held_once_it_has_begun(engine: Generator) -> None:
    call = ToolCall(id="call_1", name="get_time", arguments="{}")
    asked = Message(role="user", content="What time is it?")
    before = [asked, Message(role="assistant", content="", tool_calls=(call,))]
    history = [*before * 3, asked]
    answer, pieces = ask(engine, history)
    assert answer.finish_reason == "tool_calls", answer
    assert answer.text == ""
    for made in answer.tool_calls:
        Draft202012Validator(SCHEMAS[made.name]).validate(json.loads(made.arguments))
    assert joined(pieces) == answer.tool_calls


@pytest.mark.parametrize("choice", [None, "none"])
def test_an_answer_in_words_is_text(engine: Generator, choice: Any) -> None:
    answer, pieces = ask(engine, "Hi! How are you?", tool_choice=choice, max_tokens=12)
    assert answer.tool_calls == ()
    assert answer.finish_reason in {"stop", "length"}
    assert answer.text == "".join(map(str, pieces))
    assert len(answer.text) > 5


def test_results_of_calls_are_read(engine: Generator) -> None:
    call = ToolCall(id="call_1", name="get_weather", arguments='{"city": "Paris"}')
    history = [
        Message(role="user", content="What is the weather in Paris?"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="Hail and 37 degrees", tool_call_id="call_1"),
    ]
    without, _ = ask(engine, history[:1], max_tokens=1)
    answer, _ = ask(engine, history, max_tokens=32)
    assert answer.usage
    assert without.usage
    assert answer.usage.prompt_tokens > without.usage.prompt_tokens + 10
    assert ask(engine, history, tools=(), max_tokens=32)[0].text


def test_a_response_s_schema_and_tools_leave_the_choice_to_the_model(engine: Generator) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 20}},
        "required": ["answer"],
    }
    wish = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer, pieces = ask(engine, "What is the capital of France?", response_format=wish)
    if answer.tool_calls:
        assert joined(pieces) == answer.tool_calls
    else:
        Draft202012Validator(schema).validate(json.loads(answer.text))
        assert "".join(map(str, pieces)) == answer.text
    (call,) = ask(engine, "Hi", response_format=wish, tool_choice=named("get_time"))[0].tool_calls
    assert call.name == "get_time"


def test_a_call_that_is_cut_says_so(engine: Generator) -> None:
    answer, _ = ask(engine, "Hi", tool_choice=named("get_weather"), max_tokens=14)
    assert answer.finish_reason == "length"


def test_who_leaves_stops_a_call(engine: Generator) -> None:
    options = GenerationOptions(tools=TOOLS, tool_choice="required", max_tokens=400)
    said = [Message(role="user", content="Hi")]
    answer = engine.generate(said, options, on_token=bool)
    assert answer.finish_reason == "cancelled"


def test_the_packaged_template_knows_no_tools() -> None:
    assert not knows_tools(server_of(None), context_tokens=CONTEXT_TOKENS)


def test_too_many_tools_are_refused_before_anything_is_generated(engine: Generator) -> None:
    wide = {"type": "object", "properties": {f"p{n}": {"type": "null"} for n in range(300)}}
    many = GenerationOptions(tools=(*TOOLS, tool("b", wide)), tool_choice="required")
    with pytest.raises(OptionsRefusedError) as refused:
        engine.check(many)
    assert refused.value.extensions == {"field": "tools"}
    engine.check(replace(many, tool_choice="none"))
