"""Which JSON Schemas the embedded engine takes: those that don't stop everybody else."""

import sys
from collections.abc import Callable
from typing import Any

import pytest

from app.engines.json_schema import MAX_ALTERNATIVES, MAX_CHARS, check_cost
from app.errors import OptionsRefusedError


def wanted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


DEEP: Any = {"type": "object", "properties": {"pattern": {"type": "string"}}}
for _ in range(50):
    DEEP = {"type": "array", "items": DEEP}

EMPTY_STRING = {"minLength": 5, "maxLength": 2}
BOTTOMLESS: Any = {}
for _ in range(sys.getrecursionlimit()):
    BOTTOMLESS = {"items": BOTTOMLESS}

CHEAP = [
    {},
    DEEP,
    {"properties": {"pattern": {"type": "string"}}, "required": ["pattern"]},
    {"const": {"pattern": "x"}, "default": {"pattern": "x"}},
    {"enum": list(range(MAX_ALTERNATIVES))},
    {"$defs": {"enum": {"enum": ["a"]}}, "$ref": "#/$defs/enum"},
    {"definitions": {"a-b": {"type": "null"}}, "items": {"$ref": "#/definitions/a-b"}},
    {"properties": {"next": {"$ref": "#"}}},
    {"properties": {"$ref": {"type": "string"}, "minLength": {}, "maxLength": {}}},
    {"description": "a" * (MAX_CHARS - 100)},
    {"const": EMPTY_STRING, "default": EMPTY_STRING, "examples": [EMPTY_STRING]},
    {"type": "string", "minLength": 2, "maxLength": 2},
    {"items": {"type": "number", "minimum": 0.5, "maximum": 1}, "minItems": 1},
    {"minLength": "5", "maxLength": None, "minItems": [3], "maxItems": 2},
]
COSTLY = [
    {"type": "string", "pattern": "^((a{0,20}x?){0,20}y?){0,20}$"},
    {"anyOf": [{"type": "null"}, {"properties": {"a": {"items": {"pattern": "a"}}}}]},
    {"$defs": {"p": {"pattern": "a"}}, "$ref": "#/$defs/p"},
    {"enum": list(range(MAX_ALTERNATIVES + 1))},
    {"properties": {f"p{n}": {} for n in range(MAX_ALTERNATIVES + 1)}},
    {"items": {"anyOf": [{"enum": list(range(100))} for _ in range(3)]}},
    {"description": "a" * MAX_CHARS},
    BOTTOMLESS,
    {"$ref": "https://example.com/schema.json"},
    {"$ref": ""},
    {"$ref": 1},
    {"$ref": "#/$defs/a/const", "$defs": {"a": {"const": {"pattern": "a"}}}},
    {"properties": {"a": {"$ref": "#/properties/b"}, "b": {"default": {"pattern": "a"}}}},
]
RANGES = [
    {"minLength": 5, "maxLength": 2},
    {"minItems": 1, "maxItems": 0},
    {"minimum": 0.2, "maximum": 0.1},
    {"minProperties": 2, "maxProperties": 1},
]
PLACES: list[Callable[[Any], Any]] = [
    lambda empty: empty,
    lambda empty: {"properties": {"a": empty}},
    lambda empty: {"items": {"additionalProperties": empty}},
    lambda empty: {"prefixItems": [{}, empty]},
    lambda empty: {"properties": {"a": {"anyOf": [{"type": "null"}, empty]}}},
    lambda empty: {"$defs": {"const": {"allOf": [empty]}}, "$ref": "#/$defs/const"},
]


@pytest.mark.parametrize("schema", CHEAP)
def test_a_cheap_schema_passes(schema: Any) -> None:
    check_cost(wanted(schema))


@pytest.mark.parametrize("schema", COSTLY, ids=range(len(COSTLY)))
def test_a_costly_schema_is_refused(schema: Any) -> None:
    with pytest.raises(OptionsRefusedError) as refused:
        check_cost(wanted(schema))
    assert refused.value.extensions == {"field": "response_format"}


@pytest.mark.parametrize("empty", RANGES)
@pytest.mark.parametrize("place", PLACES)
def test_a_range_that_holds_nothing_is_refused_wherever_it_is(
    empty: Any, place: Callable[[Any], Any]
) -> None:
    with pytest.raises(OptionsRefusedError, match=r"The JSON schema's `min\w+` is above its `max"):
        check_cost(wanted(place(empty)))


@pytest.mark.parametrize("given", [None, {"type": "json_object"}, {"type": "json_schema"}])
def test_a_format_without_a_schema_passes(given: Any) -> None:
    check_cost(given)
