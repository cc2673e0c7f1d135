"""Which alternatives exclude one another, so that an answer to one is none to the others.

llama.cpp takes `oneOf` for `anyOf`: what is an answer to two of its schemas is none to `oneOf`.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

from app.engines.held_values import Part, Place, refuse

# By the pointers that `$ref` has to them.
Definitions = Mapping[str, Any]
JSON_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})
PYTHON_TYPES: Mapping[type, str] = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
    type(None): "null",
}


def check_one_of(part: Part, definitions: Definitions, place: Place) -> None:
    """Refuse a `oneOf` unless each two of its schemas can be told apart.

    All that it leads to has been checked.
    """
    schemas = [_resolve(schema, definitions) for schema in part["oneOf"]]
    described = [(_types(schema), schema) for schema in schemas]
    for (first_types, first), (second_types, second) in combinations(described, 2):
        if not first_types & second_types:
            continue
        if not _differ(first, second) and not _are_tagged(first, second, definitions):
            raise refuse("oneOf", place, "two of its schemas might both hold; `anyOf` doesn't mind")


def type_of(value: object) -> str:
    """Return a value's type as JSON Schema has it: 1.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return PYTHON_TYPES[type(value)]


def is_of(value: object, types: Sequence[str]) -> bool:
    """Tell whether a value is of one of these types; each integer is a number."""
    name = type_of(value)
    return name in types or (name == "integer" and "number" in types)


def _resolve(schema: Part, definitions: Definitions) -> Part:
    """Follow `$ref` to a schema; to one that says nothing where that leads in a circle."""
    for _ in range(len(definitions) + 1):
        if "$ref" not in schema:
            return schema
        schema = definitions[schema["$ref"]]
    return {}


def _types(schema: Part) -> frozenset[str]:
    """Return the types that answers can have; those of nested alternatives aren't looked for."""
    if (values := _values(schema)) is not None:
        return frozenset(map(type_of, values))
    if "type" not in schema:
        return JSON_TYPES
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return frozenset({*types, "integer"} if "number" in types else types)


def _values(schema: Part) -> list[Any] | None:
    """Return the values that a schema names one by one."""
    if "const" in schema:
        return [schema["const"]]
    return schema.get("enum")


def _differ(first: Part, second: Part) -> bool:
    """Tell whether both name their values, and none of them twice."""
    values = [_comparable(_values(schema)) for schema in (first, second)]
    return values[0] is not None and values[1] is not None and not values[0] & values[1]


def _comparable(values: list[Any] | None) -> frozenset[Hashable] | None:
    """Return plain values with their types: True is no 1, and 1.0 is one."""
    if values is None or any(isinstance(value, list | dict) for value in values):
        return None
    return frozenset((type_of(value), value) for value in values)


def _are_tagged(first: Part, second: Part, definitions: Definitions) -> bool:
    """Tell whether both require a property that can't be the same in both."""
    tags = [_required(schema) for schema in (first, second)]
    return any(
        _differ(_resolve(tags[0][name], definitions), _resolve(tags[1][name], definitions))
        for name in tags[0].keys() & tags[1].keys()
    )


def _required(schema: Part) -> dict[str, Any]:
    """Return the properties that an answer always has."""
    if schema.get("type") != "object":
        return {}
    return {name: schema["properties"][name] for name in schema.get("required", ())}
