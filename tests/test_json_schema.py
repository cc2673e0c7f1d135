"""Which JSON Schemas the embedded engine takes: those that don't stop everybody else."""

from typing import Any

import pytest

from app.engines.json_schema import MAX_ALTERNATIVES, check_cost
from app.errors import OptionsRefusedError


def wanted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


DEEP: Any = {"type": "object", "properties": {"pattern": {"type": "string"}}}
for _ in range(50):
    DEEP = {"type": "array", "items": DEEP}

CHEAP = [
    {},
    DEEP,
    {"properties": {"pattern": {"type": "string"}}, "required": ["pattern"]},
    {"const": {"pattern": "x"}, "default": {"pattern": "x"}},
    {"enum": list(range(MAX_ALTERNATIVES))},
    {"$defs": {"enum": {"enum": ["a"]}}, "$ref": "#/$defs/enum"},
]
COSTLY = [
    {"type": "string", "pattern": "^((a{0,20}x?){0,20}y?){0,20}$"},
    {"anyOf": [{"type": "null"}, {"properties": {"a": {"items": {"pattern": "a"}}}}]},
    {"$defs": {"p": {"pattern": "a"}}, "$ref": "#/$defs/p"},
    {"enum": list(range(MAX_ALTERNATIVES + 1))},
    {"properties": {f"p{n}": {} for n in range(MAX_ALTERNATIVES + 1)}},
    {"items": {"anyOf": [{"enum": list(range(100))} for _ in range(3)]}},
]


@pytest.mark.parametrize("schema", CHEAP)
def test_a_cheap_schema_passes(schema: Any) -> None:
    check_cost(wanted(schema))


@pytest.mark.parametrize("schema", COSTLY)
def test_a_costly_schema_is_refused(schema: Any) -> None:
    with pytest.raises(OptionsRefusedError) as refused:
        check_cost(wanted(schema))
    assert refused.value.extensions == {"field": "response_format"}


@pytest.mark.parametrize("given", [None, {"type": "json_object"}, {"type": "json_schema"}])
def test_a_format_without_a_schema_passes(given: Any) -> None:
    check_cost(given)
