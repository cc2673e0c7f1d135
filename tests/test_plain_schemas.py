"""Keywords that ask nothing are left out before a schema is checked and sent; all others stay."""

from typing import Any

import pytest

from app.engines.llama_cpp.plain_schemas import plain

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
BITS_32 = {**WHOLE, "format": "int32"}
REF = {"$ref": "#/$defs/A"}
OLD = {"$schema": "http://json-schema.org/draft-07/schema#"}
NEW = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def wanted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


LEFT_OUT: list[tuple[Any, Any]] = [
    ({**WHOLE, "format": "int64"}, WHOLE),
    ({"type": ["integer", "null"], "format": "int64"}, {"type": ["integer", "null"]}),
    ({"type": "number", "format": "double"}, {"type": "number"}),
    ({"type": "number", "format": "float"}, {"type": "number"}),
    (
        {**BITS_32, "minimum": 0, "exclusiveMaximum": 9},
        {**WHOLE, "minimum": 0, "exclusiveMaximum": 9},
    ),
    ({"items": TEXT, "uniqueItems": False}, {"items": TEXT}),
    ({"type": "object", "patternProperties": {}}, {"type": "object"}),
    ({"type": "object", "propertyNames": TEXT}, {"type": "object"}),
    ({"type": "object", "propertyNames": {}}, {"type": "object"}),
    ({"prefixItems": [TEXT], "items": False}, {"prefixItems": [TEXT]}),
    ({"prefixItems": [TEXT], "items": True}, {"prefixItems": [TEXT]}),
    ({**NEW, "prefixItems": [TEXT], "items": False}, {**NEW, "prefixItems": [TEXT]}),
    (
        {"allOf": [REF], "title": "a", "$defs": {"A": TEXT}},
        {"title": "a", **REF, "$defs": {"A": TEXT}},
    ),
    ({"allOf": [{**REF, "title": "b"}], "title": "a"}, {"title": "a", **REF}),
]
STAYS: list[Any] = [
    {},
    TEXT,
    BITS_32,
    {**BITS_32, "minimum": 0},
    {**BITS_32, "minimum": 0, "maximum": 2**31},
    {**BITS_32, "minimum": "0", "maximum": 9},
    {"type": ["integer", "string"], "format": "int64"},
    {"type": [["integer"]], "format": "int64"},
    {**WHOLE, "format": ["int64"]},
    {**WHOLE, "format": "double"},
    {"type": "number", "format": "int64"},
    {"format": "int64"},
    {"items": TEXT, "uniqueItems": True},
    {"items": TEXT, "uniqueItems": 0},
    {"type": "object", "patternProperties": {"a": TEXT}},
    {"type": "object", "propertyNames": {"enum": ["a"]}},
    {"items": False},
    {"prefixItems": [TEXT], "items": TEXT},
    {**OLD, "prefixItems": [TEXT], "items": False},
    {"allOf": [TEXT]},
    {"allOf": [REF, REF]},
    {"allOf": [REF], "type": "string"},
    {"allOf": [{**REF, "maxLength": 2}]},
    {"allOf": REF},
    # Data, and names of the client's own.
    {"const": {"uniqueItems": False}, "default": {"uniqueItems": False}},
    {"properties": {"uniqueItems": TEXT, "format": WHOLE, "patternProperties": {}}},
    # What is refused later.
    {"properties": [TEXT], "anyOf": TEXT, "items": [{"uniqueItems": False}]},
]
PLACES: list[Any] = [
    lambda part: {"properties": {"a": part}},
    lambda part: {"items": part},
    lambda part: {"type": "object", "additionalProperties": part},
    lambda part: {"anyOf": [TEXT, part]},
    lambda part: {"oneOf": [part]},
    lambda part: {"prefixItems": [part]},
    lambda part: {"$ref": "#/$defs/A", "$defs": {"A": part}},
    lambda part: {"$ref": "#/definitions/A", "definitions": {"A": part}},
]


@pytest.mark.parametrize(("schema", "kept"), LEFT_OUT)
def test_what_asks_nothing_is_left_out(schema: Any, kept: Any) -> None:
    assert plain(wanted(schema)) == wanted(kept)


@pytest.mark.parametrize("place", PLACES, ids=range(len(PLACES)))
def test_it_is_left_out_wherever_it_stands(place: Any) -> None:
    schema = wanted(place({"items": TEXT, "uniqueItems": False}))
    assert plain(schema) == wanted(place({"items": TEXT}))
    assert schema == wanted(place({"items": TEXT, "uniqueItems": False})), "the caller's own"


@pytest.mark.parametrize("schema", STAYS)
def test_all_else_stays(schema: Any) -> None:
    assert plain(wanted(schema)) == wanted(schema)


@pytest.mark.parametrize("given", [None, {"type": "json_object"}, {"type": "json_schema"}])
def test_a_format_without_a_schema_stays(given: Any) -> None:
    assert plain(given) == given


def test_one_that_is_nested_very_deeply_is_left_to_the_check() -> None:
    deep: Any = TEXT
    for _ in range(800):
        deep = {"items": deep}
    assert plain(wanted(deep)) == wanted(deep)
