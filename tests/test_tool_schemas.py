"""Of a tool's schema what a grammar can't hold is left out, never refused; the rest stays."""

import json
from typing import Any

import pytest

from app.engines.llama_cpp.held_schemas import check_held
from app.engines.llama_cpp.held_tools import named
from app.engines.llama_cpp.tool_schemas import call_format, shown
from app.engines.tool_calls import ToolUse
from app.errors import OptionsRefusedError

TEXT, WHOLE = {"type": "string"}, {"type": "integer"}


def use(*schemas: Any, **more: Any) -> ToolUse:
    tools = tuple({"name": f"t{n}", "parameters": schema} for n, schema in enumerate(schemas))
    return ToolUse(tools=tools, is_required=True, has_many=more.get("has_many", False))


def held(*schemas: Any, context_tokens: int = 2048, **more: Any) -> Any:
    wanted = call_format(use(*schemas), context_tokens=context_tokens, **more)
    check_held(wanted)
    return wanted["json_schema"]["schema"]


def arguments(schema: Any, **more: Any) -> Any:
    return held(schema, **more)["properties"]["arguments"]


def shape(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def part(schema: Any, **more: Any) -> Any:
    """Return what becomes of a schema inside of arguments."""
    return arguments(shape(a=schema), **more)["properties"]["a"]


@pytest.mark.parametrize(
    ("schema", "kept"),
    [
        ({**TEXT, "pattern": "^((a{0,20}x?){0,20}y?){0,20}$", "maxLength": 9}, {"maxLength": 9}),
        ({**TEXT, "format": "date-time", "description": "When"}, {"description": "When"}),
        ({"type": "number", "minimum": 0, "multipleOf": 0.5}, {}),
        ({**WHOLE, "minimum": 1, "maximum": 9, "multipleOf": 3}, {"minimum": 1, "maximum": 9}),
        ({"type": "array", "items": WHOLE, "uniqueItems": True}, {"items": WHOLE, "maxItems": 16}),
        ({"type": "array", "items": [WHOLE], "maxItems": 3}, {"maxItems": 3}),
        ({"type": "object", "patternProperties": {"a": TEXT}, "minProperties": 1}, {}),
        ({"type": "object", "properties": {}, "additionalProperties": True}, {"properties": {}}),
        ({"enum": ["a", "b"], "type": "string", "nullable": True}, {"enum": ["a", "b"]}),
        ({**TEXT, "maxLength": 99_999}, {}),
        ({**TEXT, "minLength": 5, "maxLength": 2}, {}),
    ],
)
def test_what_a_grammar_cant_hold_is_left_out(schema: Any, kept: Any) -> None:
    found = part(schema)
    assert found.items() >= kept.items()
    refused = {"pattern", "format", "multipleOf", "uniqueItems", "minProperties", "nullable"}
    assert not found.keys() & refused
    assert found.get("type") == schema.get("type")


@pytest.mark.parametrize(
    "schema",
    [True, 7, {"type": "text"}, {"$ref": "#/nowhere"}, {"$ref": 7}, {"allOf": [TEXT]}, {"not": {}}],
)
def test_what_is_no_schema_or_says_nothing_that_holds_is_any_json(schema: Any) -> None:
    assert part(schema) == {}


@pytest.mark.parametrize("schema", [None, {"type": "object", "properties": {}}, {"properties": {}}])
def test_a_tool_without_parameters_has_no_arguments(schema: Any) -> None:
    assert arguments(schema)["properties"] == {}


@pytest.mark.parametrize("schema", [{}, {"not": {}}, {"allOf": [shape(a=TEXT)]}, TEXT])
def test_arguments_are_an_object_always(schema: Any) -> None:
    assert arguments(schema) == {"type": "object"}


def test_names_that_are_only_required_are_there() -> None:
    schema = {"type": "object", "properties": {"a": WHOLE}, "required": ["a", "b"]}
    found = arguments(schema)
    assert found["properties"] == {"a": WHOLE, "b": {}}
    assert found["required"] == ["a", "b"]


def test_texts_and_lists_without_a_bound_get_one_that_fits_the_context() -> None:
    assert part(TEXT)["maxLength"] == 2048 // 4
    assert part(TEXT, context_tokens=32_768)["maxLength"] == 2_000
    many = arguments(shape(**{f"p{n}": TEXT for n in range(16)}))["properties"]
    assert {each["maxLength"] for each in many.values()} == {64}
    assert part({**TEXT, "minLength": 900})["maxLength"] == 900
    assert part({"type": ["string", "null"]})["maxLength"] == 512
    assert "maxLength" not in part({"type": "string", "enum": ["a"]})


def test_one_of_several_is_any_of_them() -> None:
    assert part({"oneOf": [WHOLE, {"type": "number"}]}) == {"anyOf": [WHOLE, {"type": "number"}]}


def test_definitions_of_several_tools_keep_apart() -> None:
    item = {"$ref": "#/$defs/Item"}
    first = {**shape(a=item), "$defs": {"Item": WHOLE}}
    second = {**shape(a=item, b={"$ref": "#/definitions/x"}), "$defs": {"Item": shape(c=item)}}
    schema = held(first, {**second, "definitions": {"x": {"type": "null"}}})
    calls = [call["properties"] for call in schema["anyOf"]]
    assert [call["name"] for call in calls] == [{"const": "t0"}, {"const": "t1"}]
    inner = [call["arguments"]["properties"] for call in calls]
    found = [schema["$defs"][part["a"]["$ref"].removeprefix("#/$defs/")] for part in inner]
    assert found[0] == WHOLE
    assert found[1]["properties"]["c"] == inner[1]["a"], "it contains itself"


def test_references_in_a_circle_leave_any_object() -> None:
    circle = {"x": {"$ref": "#/$defs/y"}, "y": {"$ref": "#/$defs/x"}}
    assert arguments({**shape(a={"$ref": "#/$defs/x"}), "$defs": circle}) == {"type": "object"}


def test_an_answer_may_be_a_call_or_of_the_response_s_schema() -> None:
    answer = {**shape(a={"$ref": "#/$defs/Item"}), "$defs": {"Item": WHOLE}}
    schema = held(
        {**shape(a={"$ref": "#/$defs/Item"}), "$defs": {"Item": TEXT}}, answer=named(answer)
    )
    call, other = schema["anyOf"]
    assert call["properties"]["name"] == {"const": "t0"}
    assert other == shape(a={"$ref": "#/$defs/Item"})
    assert schema["$defs"]["Item"] == WHOLE
    assert held(None, answer={"type": "json_object"})["anyOf"][1] == {"type": "object"}


def test_several_calls_are_a_list() -> None:
    schema = call_format(use(None, has_many=True), context_tokens=99)["json_schema"]["schema"]
    assert (schema["type"], schema["minItems"], schema["maxItems"]) == ("array", 1, 8)


def test_tools_that_are_too_much_for_a_grammar_are_refused_by_name() -> None:
    wide = shape(**{f"p{n}": WHOLE for n in range(250)})
    assert held(*[wide] * 5), "after its name a call has one tool's alternatives"
    wider = shape(**{f"p{n}": WHOLE for n in range(257)})
    with pytest.raises(OptionsRefusedError) as refused:
        held(None, wider)
    assert refused.value.extensions == {"field": "tools"}
    assert refused.value.detail.startswith("The tool 't1' is too much")
    for hold in (held, lambda *schemas: shown(use(*schemas))):
        with pytest.raises(OptionsRefusedError, match=r"^The tools together are too much.*65536"):
            hold(*[wide] * 10)


def test_many_tools_with_texts_share_what_a_grammar_can_repeat() -> None:
    calls = held(*[shape(a=TEXT, b=TEXT)] * 60, context_tokens=100_000)["anyOf"]
    parts = [call["properties"]["arguments"]["properties"] for call in calls]
    assert {part["a"]["maxLength"] for part in parts} == {208}


def test_what_llama_cpp_is_shown_says_what_it_wont_hold() -> None:
    schema = {**shape(a={**TEXT, "pattern": "^a$"}, b={"$ref": "#/$defs/B"}), "$defs": {"B": WHOLE}}
    found, empty = (tool["function"]["parameters"] for tool in shown(use(schema, None)))
    assert json.loads(found["properties"]["a"]["$comment"]) == {"pattern": "^a$"}
    assert "maxLength" not in found["properties"]["a"], "its models know when to stop"
    assert empty == {"type": "object", "properties": {}}


MANY = 3_000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["object"] * MANY, "properties": {}, **{f"k{n}": 0 for n in range(MANY)}},
        {"type": "object", "properties": {"a": TEXT}, "required": ["a"] * MANY},
    ],
)
def test_keywords_and_names_that_come_often_are_checked_once(schema: Any) -> None:
    """A check of each beside all others would stop the event loop for seconds."""
    (tool,) = shown(use(schema))
    assert len(tool["function"]["parameters"].get("type", ())) <= len("object")
    assert len(arguments(schema).get("required", ())) <= 1


def test_tools_that_are_too_long_to_be_read_are_refused_before() -> None:
    long = {"type": "object", "not": {"const": "a" * 100_000}}
    for hold in (held, lambda *schemas: shown(use(*schemas))):
        with pytest.raises(OptionsRefusedError, match=r"^The schemas of the tools .*98304"):
            hold(long)
