"""Checks that the schemas of a `oneOf` exclude each other.

llama.cpp treats `oneOf` as `anyOf`, so it may write an answer that matches two of them.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from app.engines.llama_cpp.held_values import MAX_PATH_CHARS, Part, SchemaPath, refuse

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alternative:
    """What tells a schema from another; None: values that can't be compared."""

    types: frozenset[str]
    values: frozenset[Hashable] | None
    tags: Mapping[str, frozenset[Hashable] | None]  # the values of required properties
    optional: Mapping[str, frozenset[Hashable] | None]  # of those that aren't required


def check_one_of(part: Part, definitions: Definitions, path: SchemaPath) -> None:
    """Refuse a `oneOf` unless each two of its schemas can be told apart.

    All schemas in it have been checked.
    """
    described = [_describe(_resolve(schema, definitions), definitions) for schema in part["oneOf"]]
    for first, second in combinations(described, 2):
        if first.types & second.types and not _differ(first.values, second.values):
            names = first.tags.keys() & second.tags.keys()
            if not any(_differ(first.tags[name], second.tags[name]) for name in names):
                raise refuse("oneOf", path, _reason(first, second))


def type_of(value: object) -> str:
    """Return a value's type as JSON Schema has it: 1.0 is an integer."""
    if isinstance(value, float) and value.is_integer():
        return "integer"
    return PYTHON_TYPES[type(value)]


def is_of(value: object, types: Sequence[str]) -> bool:
    """Return whether a value is of one of these types; each integer is a number."""
    name = type_of(value)
    return name in types or (name == "integer" and "number" in types)


def _reason(first: _Alternative, second: _Alternative) -> str:
    """Say how the two could be told apart."""
    reason = "two of its schemas might both hold; "
    values = [{**one.optional, **one.tags} for one in (first, second)]
    for name in values[0].keys() & values[1].keys():
        if _differ(values[0][name], values[1][name]):
            return f"{reason}make `{name[:MAX_PATH_CHARS]}` required in both"
    return f"{reason}use `anyOf` if they may"


def _resolve(schema: Part, definitions: Definitions) -> Part:
    """Follow `$ref` to a schema; to an empty one where references form a cycle."""
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


def _differ(first: frozenset[Hashable] | None, second: frozenset[Hashable] | None) -> bool:
    return first is not None and second is not None and not first & second


def _comparable(values: list[Any] | None) -> frozenset[Hashable] | None:
    """Return plain values with their types: True isn't 1, but 1.0 is."""
    if values is None or any(isinstance(value, list | dict) for value in values):
        return None
    return frozenset((type_of(value), value) for value in values)


def _describe(schema: Part, definitions: Definitions) -> _Alternative:
    tags: dict[str, frozenset[Hashable] | None] = {}
    optional: dict[str, frozenset[Hashable] | None] = {}
    if schema.get("type") == "object":
        required = schema.get("required", ())
        for name, part in schema.get("properties", {}).items():
            values = _comparable(_values(_resolve(part, definitions)))
            (tags if name in required else optional)[name] = values
    return _Alternative(
        types=_types(schema), values=_comparable(_values(schema)), tags=tags, optional=optional
    )
