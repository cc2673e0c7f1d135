"""What llama.cpp would pass over in a JSON Schema is refused by its name, wherever it stands."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.engines.llama_cpp.held_schemas import ALONE, OF_TYPES, check_held, check_stop
from app.engines.llama_cpp.held_values import EMPTY_FORMATS, MAX_ITEMS, MAX_LENGTH, RULED_FORMATS
from app.engines.llama_cpp.plain_schemas import ANNOTATIONS, NUMBER_FORMATS, ROOT
from app.errors import OptionsRefusedError

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
NOTHING = {"type": "null"}


def wanted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def refusal(schema: Any) -> str:
    with pytest.raises(OptionsRefusedError) as refused:
        check_held(wanted(schema))
    assert refused.value.extensions == {"field": "response_format"}
    return refused.value.detail


def tagged(name: str, /, **more: Any) -> dict[str, Any]:
    properties = {"kind": {"const": name}, **more}
    return {"type": "object", "properties": properties, "required": ["kind"]}


def defined(*names: str, **parts: Any) -> dict[str, Any]:
    references = [{"$ref": f"#/$defs/{name}"} for name in names]
    return {"type": "array", "prefixItems": references, "$defs": parts}


# The schema, the keyword that is named, and why.
UNKNOWN = [
    ({"type": "integer", "multipleOf": 3}, "multipleOf", "isn't among"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems", "isn't among"),
    ({"type": "array", "contains": WHOLE}, "contains", "isn't among"),
    ({"type": "array", "minContains": 1}, "minContains", "isn't among"),
    ({"type": "array", "additionalItems": False}, "additionalItems", "isn't among"),
    ({"type": "array", "unevaluatedItems": False}, "unevaluatedItems", "isn't among"),
    ({"type": "object", "patternProperties": {"a": TEXT}}, "patternProperties", "isn't among"),
    ({"type": "object", "propertyNames": {"enum": ["a"]}}, "propertyNames", "isn't among"),
    ({"type": "object", "minProperties": 1}, "minProperties", "isn't among"),
    ({"type": "object", "maxProperties": 1}, "maxProperties", "isn't among"),
    ({"type": "object", "dependentRequired": {}}, "dependentRequired", "isn't among"),
    ({"type": "object", "dependentSchemas": {}}, "dependentSchemas", "isn't among"),
    ({"type": "object", "dependencies": {}}, "dependencies", "isn't among"),
    ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties", "isn't among"),
    ({"type": "string", "pattern": "^a+$"}, "pattern", "isn't among"),
    ({**TEXT, "pattern": "^((a{0,20}x?){0,20}y?){0,20}$"}, "pattern", "isn't among"),
    ({"properties": {"a": {"$ref": "#/$defs/p"}}, "$defs": {"p": {"pattern": "a"}}}, "pattern", ""),
    ({"type": "string", "contentEncoding": "base64"}, "contentEncoding", "isn't among"),
    ({"type": "string", "contentMediaType": "text/plain"}, "contentMediaType", "isn't among"),
    ({"allOf": [TEXT]}, "allOf", "isn't among"),
    ({"not": TEXT}, "not", "isn't among"),
    ({"if": TEXT, "then": {"const": "a"}}, "if", "isn't among"),
    ({"$anchor": "a"}, "$anchor", "isn't among"),
    ({"$dynamicRef": "#a"}, "$dynamicRef", "isn't among"),
    ({"$recursiveRef": "#"}, "$recursiveRef", "isn't among"),
    ({"type": "string", "nullable": True}, "nullable", "isn't among"),
    ({"x-order": 1}, "x-order", "isn't among"),
]
MISPLACED = [
    ({"type": "number", "minimum": 0}, "minimum", "`integer`, not for `number`"),
    ({"type": "number", "exclusiveMaximum": 0}, "exclusiveMaximum", "`integer`, not for `number`"),
    ({"type": ["integer", "number"], "maximum": 9}, "maximum", "not for `number`"),
    ({"type": "string", "minimum": 0}, "minimum", "not for `string`"),
    ({"minimum": 0}, "minimum", "needs a `type`: integer"),
    ({"minLength": 1}, "minLength", "needs a `type`: string"),
    ({"format": "uuid"}, "format", "needs a `type`: string"),
    ({"minItems": 1}, "minItems", "needs a `type`: array"),
    ({"required": []}, "required", "needs a `type`: object"),
    ({"additionalProperties": False}, "additionalProperties", "needs a `type`: object"),
    ({"properties": {}, "items": TEXT}, "items", "not for `object`"),
    ({"type": "object", "items": TEXT}, "items", "`array`, not for `object`"),
    ({"$ref": "#/$defs/A", "type": "string", "$defs": {"A": TEXT}}, "type", "not beside `$ref`"),
    ({"anyOf": [TEXT], "maxLength": 2}, "maxLength", "not beside `anyOf`"),
    ({"anyOf": [TEXT], "type": "string"}, "type", "not beside `anyOf`"),
    ({"anyOf": [TEXT], "oneOf": [TEXT]}, "oneOf", "not beside `anyOf`"),
    ({"oneOf": [TEXT], "properties": {}}, "properties", "not beside `oneOf`"),
    ({"const": 1, "enum": [2]}, "enum", "not beside `const`"),
    ({"const": 1, "minimum": 2}, "minimum", "not beside `const`"),
    ({"enum": ["a"], "type": "string", "minLength": 2}, "minLength", "not beside `enum`"),
    ({"properties": {"a": {"$defs": {"A": TEXT}}}}, "$defs", "only stand at the beginning"),
    ({"items": {"$id": "https://example.com/a"}}, "$id", "only stand at the beginning"),
]
VALUES = [
    ({"type": "text"}, "type", "has to name JSON's types"),
    ({"type": []}, "type", "has to name JSON's types"),
    ({"type": None}, "type", "has to name JSON's types"),
    ({"type": [["string"]]}, "type", "has to name JSON's types"),
    ({"enum": []}, "enum", "isn't empty"),
    ({"enum": "ab"}, "enum", "isn't empty"),
    ({"anyOf": []}, "anyOf", "isn't empty"),
    ({"oneOf": {}}, "oneOf", "isn't empty"),
    ({"prefixItems": []}, "prefixItems", "isn't empty"),
    ({"const": 1, "type": "string"}, "const", "isn't of its `type`"),
    ({"const": True, "type": "integer"}, "const", "isn't of its `type`"),
    ({"const": 1.5, "type": ["integer", "string"]}, "const", "isn't of its `type`"),
    ({"enum": ["a", None], "type": "string"}, "enum", "isn't of its `type`"),
    ({"const": {"a": [2**64]}}, "const", "beyond 64 bits"),
    ({"enum": [-(2**63) - 1]}, "enum", "beyond 64 bits"),
    ({"enum": [[math.inf]]}, "enum", "too large"),
    ({"properties": []}, "properties", "has to be an object"),
    ({"properties": {"*": TEXT}}, "properties", "named `*`"),
    ({"properties": {"a": TEXT}, "required": ["b"]}, "required", "isn't in `properties`"),
    ({"properties": {"a": TEXT}, "required": [["a"]]}, "required", "isn't in `properties`"),
    ({"properties": {"a": TEXT}, "required": "a"}, "required", "has to be a list"),
    ({"type": "object", "required": ["a"]}, "required", "isn't in `properties`"),
    (
        {"properties": {"a": TEXT}, "additionalProperties": True},
        "additionalProperties",
        "beside `properties` it has to be false",
    ),
    (
        {"properties": {"a": TEXT}, "additionalProperties": WHOLE},
        "additionalProperties",
        "beside `properties` it has to be false",
    ),
    ({"items": TEXT, "minItems": 2, "maxItems": 1}, "minItems", "above its `maxItems`"),
    ({"items": TEXT, "minItems": -1}, "minItems", "an integer from 0"),
    ({"items": TEXT, "maxItems": 3.0}, "maxItems", "an integer from 0"),
    ({"items": TEXT, "maxItems": True}, "maxItems", "an integer from 0"),
    ({"items": TEXT, "maxItems": MAX_ITEMS + 1}, "maxItems", "an integer from 0"),
    ({"items": TEXT, "prefixItems": [TEXT]}, "items", "not beside `prefixItems`"),
    ({"prefixItems": [TEXT], "minItems": 2}, "minItems", "above the number of `prefixItems`"),
    ({"prefixItems": [TEXT], "maxItems": 0}, "maxItems", "below the number of `prefixItems`"),
    ({**TEXT, "minLength": 5, "maxLength": 2}, "minLength", "above its `maxLength`"),
    ({**TEXT, "minLength": "5"}, "minLength", "an integer from 0"),
    ({**TEXT, "minLength": 10**6}, "minLength", "an integer from 0"),
    ({**TEXT, "maxLength": MAX_LENGTH + 1}, "maxLength", "an integer from 0"),
    ({**TEXT, "maxLength": None}, "maxLength", "an integer from 0"),
    ({**TEXT, "format": "email"}, "format", "path, time, uuid are known"),
    ({**TEXT, "format": "date"}, "format", "are known"),
    ({**TEXT, "format": "date-time"}, "format", "are known"),
    ({**TEXT, "format": "uuid4"}, "format", "are known"),
    ({**TEXT, "format": ["uuid"]}, "format", "are known"),
    ({**TEXT, "format": "uuid", "minLength": 40}, "minLength", "not beside `format`"),
    ({**TEXT, "format": "time", "maxLength": 4}, "maxLength", "not beside `format`"),
    ({**WHOLE, "minimum": 3, "maximum": 2}, "minimum", "nothing is left below its `maximum`"),
    ({**WHOLE, "exclusiveMinimum": 3, "exclusiveMaximum": 4}, "exclusiveMinimum", "nothing is"),
    ({**WHOLE, "minimum": 0.2, "maximum": 0.9}, "minimum", "nothing is left"),
    ({**WHOLE, "minimum": 100}, "minimum", "above 99 it needs a `maximum` too"),
    ({**WHOLE, "exclusiveMinimum": 99}, "exclusiveMinimum", "above 99"),
    ({**WHOLE, "maximum": -1}, "maximum", "below 0 it needs a `minimum` too"),
    ({**WHOLE, "exclusiveMaximum": 0}, "exclusiveMaximum", "below 0"),
    ({**WHOLE, "minimum": 1, "exclusiveMinimum": 5}, "exclusiveMinimum", "not beside `minimum`"),
    ({**WHOLE, "minimum": True}, "minimum", "has to be a number"),
    ({**WHOLE, "exclusiveMinimum": True}, "exclusiveMinimum", "has to be a number"),
    ({**WHOLE, "maximum": "9"}, "maximum", "has to be a number"),
    ({**WHOLE, "maximum": math.inf}, "maximum", "beyond 2^53"),
    ({**WHOLE, "minimum": -(10**20)}, "minimum", "beyond 2^53"),
    ({"$schema": "http://json-schema.org/draft-04/schema#"}, "$schema", "drafts 07"),
    ({"$schema": ["a"]}, "$schema", "drafts 07"),
]
REFERENCES = [
    ({"$ref": "#"}, "$ref", "has to be #/$defs/"),
    ({"$ref": ""}, "$ref", "has to be #/$defs/"),
    ({"$ref": 1}, "$ref", "has to be #/$defs/"),
    ({"$ref": "https://example.com/schema.json"}, "$ref", "has to be #/$defs/"),
    ({"$ref": "https://example.com/#/$defs/A", "$defs": {"A": TEXT}}, "$ref", "has to be"),
    ({"$ref": "#/$defs/a/const", "$defs": {"a": {"const": TEXT}}}, "$ref", "has to be #/$defs/"),
    ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": TEXT}}, "$ref", "has to be #/$defs/"),
    ({"$ref": "#/$defs/a%20b", "$defs": {"a b": TEXT}}, "$ref", "has to be #/$defs/"),
    ({"properties": {"a": {"$ref": "#/properties/b"}, "b": TEXT}}, "$ref", "has to be #/$defs/"),
    ({"$ref": "#/$defs/B", "$defs": {"A": TEXT}}, "$ref", "no such definition"),
    ({"$ref": "#/$defs/A", "$defs": [TEXT]}, "$ref", "no such definition"),
    (defined("A", A={"$ref": "#/$defs/A"}), "$ref", "leads back to itself"),
    (defined("A", A={"anyOf": [NOTHING, {"$ref": "#/$defs/A"}]}), "$ref", "leads back to itself"),
    (
        defined("A", A={"$ref": "#/$defs/B"}, B={"oneOf": [{"$ref": "#/$defs/A"}]}),
        "$ref",
        "leads back to itself",
    ),
    (defined("A_B", "A-B", **{"A_B": TEXT, "A-B": WHOLE}), "$ref", "takes it for a part of"),
    (defined("A", "A_item", A={"items": TEXT}, A_item=WHOLE), "$ref", "takes it for a part of `A`"),
    (defined("A_item", "A", A={"items": TEXT}, A_item=WHOLE), "$ref", "takes it for a part of `A`"),
    (defined("A", "A_b", A={"properties": {"b": TEXT}}, A_b=WHOLE), "$ref", "takes it for a part"),
    (defined("A", "A_b_kv", A={"properties": {"b": TEXT}}, A_b_kv=WHOLE), "$ref", "takes it for"),
    (defined("A", "A_b0", A={"properties": {"b-": TEXT, "b": TEXT}}, A_b0=WHOLE), "$ref", "takes"),
    (defined("A", "A_", A={"properties": {"": TEXT}}, A_=WHOLE), "$ref", "takes it for a part of"),
    (defined("A", "A_0", A={"anyOf": [TEXT, WHOLE]}, A_0=WHOLE), "$ref", "takes it for a part of"),
    (defined("A", "A_1", A={"type": ["string", "null"]}, A_1=WHOLE), "$ref", "takes it for a part"),
    (defined("A", "A_tuple_0", A={"prefixItems": [TEXT]}, A_tuple_0=WHOLE), "$ref", "takes it for"),
    (
        defined(
            "A",
            "A_additional_value",
            A={"type": "object", "additionalProperties": TEXT},
            A_additional_value=WHOLE,
        ),
        "$ref",
        "takes it for a part of",
    ),
]
OVERLAPPING = [
    [WHOLE, {"type": "number"}],
    [TEXT, {}],
    [TEXT, {"const": "a"}],
    [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}],
    [{"const": 1}, {"const": 1.0}],
    [{"const": [1]}, {"const": [2]}],
    [tagged("a"), tagged("a")],
    [tagged("a"), {"type": "object", "properties": {"kind": {"const": "b"}}}],
    [tagged("a"), {"type": "object"}],
    [{"properties": {"a": TEXT}}, TEXT],
    [{"anyOf": [TEXT]}, NOTHING],
    [{"$ref": "#/$defs/A"}, {"type": ["string", "null"]}],
    [{"$ref": "#/$defs/Round"}, TEXT],
    [tagged("a"), {"type": "object", "properties": {"kind": TEXT}, "required": ["kind"]}],
]


@pytest.mark.parametrize(
    ("schema", "keyword", "reason"), [*UNKNOWN, *MISPLACED, *VALUES, *REFERENCES]
)
def test_what_isnt_known_to_hold_is_refused_by_its_name(
    schema: Any, keyword: str, reason: str
) -> None:
    message = refusal(schema)
    assert f"`{keyword}` in the JSON schema" in message
    assert reason in message


@pytest.mark.parametrize("schemas", OVERLAPPING)
def test_alternatives_that_might_both_hold_are_refused(schemas: list[Any]) -> None:
    definitions = {"A": TEXT, "Round": {"$ref": "#/$defs/Round"}}
    message = refusal({"oneOf": schemas, "$defs": definitions})
    assert "`oneOf` in the JSON schema at `#`: two of its schemas might both hold" in message


PLACES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda part: part, "#"),
    (lambda part: {"properties": {"a": part}}, "#/properties/a"),
    (lambda part: {"items": {"type": "object", "additionalProperties": part}}, "#/items/additi"),
    (lambda part: {"prefixItems": [{}, part]}, "#/prefixItems/1"),
    (lambda part: {"properties": {"a": {"anyOf": [NOTHING, part]}}}, "#/properties/a/anyOf/1"),
    (lambda part: {"oneOf": [NOTHING, part]}, "#/oneOf/1"),
    (lambda part: {"$ref": "#/$defs/A", "$defs": {"A": {"items": part}}}, "#/$defs/A/items"),
    (
        lambda part: {"items": {"$ref": "#/definitions/A"}, "definitions": {"A": part}},
        "#/definitions/A",
    ),
]


PARTS = [
    {"type": "string", "pattern": "a"},
    {"type": "integer", "multipleOf": 2},
    # Nothing is in these ranges, and llama.cpp looks for it for ever.
    {"type": "string", "minLength": 5, "maxLength": 2},
    {"type": "array", "minItems": 1, "maxItems": 0},
    {"type": "integer", "minimum": 0.2, "maximum": 0.1},
    {"type": "object", "minProperties": 2, "maxProperties": 1},
]


@pytest.mark.parametrize(("place", "pointer"), PLACES)
@pytest.mark.parametrize("part", PARTS)
def test_it_is_refused_wherever_it_stands_and_its_place_is_told(
    place: Callable[[Any], Any], pointer: str, part: Any
) -> None:
    keyword = list(part)[1]
    assert re.search(rf"`{keyword}`.* at `{re.escape(pointer)}", refusal(place(part)))


def test_a_literal_that_isn_t_required_is_named() -> None:
    parts = [tagged("a"), {**tagged("b"), "required": []}]
    assert "make `kind` required in both" in refusal({"oneOf": parts})


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": [TEXT]}, "`items` in the JSON schema at `#/items`"),
        ({"items": [TEXT]}, "a list of them is `prefixItems`"),
        ({"properties": {"items": [TEXT]}}, "`properties` in the JSON schema at `#/properties/it"),
        ({"properties": {"anyOf": {"items": 1}}}, "`items` in the JSON schema at `#/properties/an"),
        ({"anyOf": [1]}, "`anyOf` in the JSON schema at `#/anyOf/0`"),
        (defined("A", A=[]), "`$defs` in the JSON schema at `#/$defs/A`"),
        ({"type": "integer", "format": "int32"}, "only double, float, int64 are known, and int32"),
        ({"type": ["number", "null"], "format": "int32"}, "`format` in the JSON schema"),
    ],
)
def test_a_refusal_names_the_keyword_and_what_to_do(schema: Any, message: str) -> None:
    assert message in refusal(schema)


def test_stop_would_cut_an_answer_that_has_to_be_whole() -> None:
    with pytest.raises(OptionsRefusedError, match="cut the answer within its JSON") as refused:
        check_stop(("x",), wanted(TEXT))
    assert refused.value.extensions == {"field": "stop"}


@pytest.mark.parametrize(
    ("stop", "given"), [((), wanted(TEXT)), (("x",), None), (("x",), {"type": "json_object"})]
)
def test_stop_passes_where_no_schema_is(stop: tuple[str, ...], given: Any) -> None:
    check_stop(stop, given)


@pytest.mark.parametrize("part", [True, False, None, 1, "a", []])
@pytest.mark.parametrize("place", [PLACES[number][0] for number in (1, 3, 4, 5, 6, 7)])
def test_a_schema_that_is_no_object_is_refused(part: Any, place: Callable[[Any], Any]) -> None:
    assert "a schema has to be an object" in refusal(place(part))


@pytest.mark.parametrize("part", [None, 1, "a", []])
def test_additional_properties_are_a_schema_true_or_false(part: Any) -> None:
    schema = {"type": "object", "additionalProperties": part}
    assert "at `#/additionalProperties`: a schema has to be an object" in refusal(schema)


def test_one_that_is_nested_too_deeply_is_refused() -> None:
    deep: Any = TEXT
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    assert "nested too deeply" in refusal(deep)


def test_what_a_client_wrote_is_told_shortened() -> None:
    message = refusal({"properties": {"n" * 10_000: {"k" * 10_000: 1}}})
    assert len(message) < 600


@pytest.mark.parametrize(
    "schemas",
    [
        [TEXT, WHOLE, NOTHING],
        [{"enum": ["a", "b"]}, {"const": "c"}, {"enum": [1, True, None]}],
        [{"const": 1}, {"const": True}],
        [{"$ref": "#/$defs/A"}, {"items": TEXT, "type": "array"}],
        [tagged("a"), tagged("b", x=TEXT), {"$ref": "#/$defs/C"}],
    ],
)
def test_alternatives_that_exclude_one_another_pass(schemas: list[Any]) -> None:
    definitions = {"A": TEXT, "C": tagged("c")}
    check_held(wanted({"oneOf": schemas, "$defs": definitions}))


@pytest.mark.parametrize("given", [None, {"type": "json_object"}, {"type": "json_schema"}])
def test_a_format_without_a_schema_passes(given: Any) -> None:
    check_held(given)


def test_a_definition_that_nothing_leads_to_may_be_anything() -> None:
    check_held(wanted(defined("A", A=TEXT, B={"pattern": "a"}, A_B=True)))


def test_the_documents_list_what_holds() -> None:
    pages = Path(__file__).parents[3] / "docs" / "chat.md"
    _, _, section = pages.read_text(encoding="utf-8").partition("### JSON Schemas")
    section = section.partition("\nRoles are")[0]
    listed = {*ANNOTATIONS, *ROOT, *ALONE, *RULED_FORMATS, *EMPTY_FORMATS, "type", *OF_TYPES}
    listed |= {
        keyword for keywords in (*ALONE.values(), *OF_TYPES.values()) for keyword in keywords
    }
    listed |= {name for names in NUMBER_FORMATS.values() for name in names} | {"int32"}
    told = set(re.findall(r"[$\w]+", section))
    assert listed - told == set()
    assert {f"{MAX_ITEMS:,}", f"{MAX_LENGTH:,}"} <= set(re.findall(r"[\d,]+\d", section))
