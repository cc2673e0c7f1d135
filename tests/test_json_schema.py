"""Which JSON Schemas the embedded engine takes: those that don't hold up others."""

import sys
from typing import Any

import pytest

from app.engines.llama_cpp.json_schema import (
    MAX_ALTERNATIVES,
    MAX_CHARS,
    MAX_REPETITIONS,
    check_cost,
)
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
    {"description": "\u00e9" * (MAX_CHARS - 100)},
    {"prefixItems": [{"maxLength": 2_000}] * (MAX_REPETITIONS // 2_000)},
    {"example": [{"maxLength": MAX_REPETITIONS + 1}], "properties": {"maxItems": {}}},
    {"const": EMPTY_STRING, "default": EMPTY_STRING, "examples": [EMPTY_STRING]},
    {"type": "string", "minLength": 2, "maxLength": 2},
    {"items": {"type": "number", "minimum": 0.5, "maximum": 1}, "minItems": 1},
    {"minLength": "5", "maxLength": None, "minItems": [3], "maxItems": 2},
]
COSTLY = [
    {"enum": list(range(MAX_ALTERNATIVES + 1))},
    {"properties": {f"p{n}": {} for n in range(MAX_ALTERNATIVES + 1)}},
    {"items": {"anyOf": [{"enum": list(range(100))} for _ in range(3)]}},
    {"description": "a" * MAX_CHARS},
    {"description": "\u00e9" * MAX_CHARS},
    {"prefixItems": [{"maxLength": 2_000}] * (MAX_REPETITIONS // 2_000), "minItems": 1},
    {"properties": {f"p{n}": {"maxItems": 1_000, "minLength": 99} for n in range(50)}},
    BOTTOMLESS,
]


@pytest.mark.parametrize("schema", CHEAP)
def test_a_cheap_schema_passes(schema: Any) -> None:
    check_cost(wanted(schema))


@pytest.mark.parametrize("schema", COSTLY, ids=range(len(COSTLY)))
def test_a_costly_schema_is_refused(schema: Any) -> None:
    with pytest.raises(OptionsRefusedError) as refused:
        check_cost(wanted(schema))
    assert refused.value.extensions == {"field": "response_format"}


def test_what_there_is_too_much_of_is_named() -> None:
    with pytest.raises(OptionsRefusedError, match="`maxLength` and `maxItems`") as refused:
        check_cost(wanted(COSTLY[-2]))
    assert f"{MAX_REPETITIONS} are allowed" in refused.value.detail


@pytest.mark.parametrize("given", [None, {"type": "json_object"}, {"type": "json_schema"}])
def test_a_format_without_a_schema_passes(given: Any) -> None:
    check_cost(given)
