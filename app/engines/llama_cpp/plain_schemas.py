"""Removes keywords of a JSON Schema that ask nothing of an answer, and that llama.cpp may misread.

The result asks the same of an answer, so it is what is checked and sent.
"""

from collections.abc import Mapping
from typing import Any

from app.engines.llama_cpp.held_references import GROUPS
from app.engines.llama_cpp.held_values import MAX_DEPTH, Part

# They ask nothing of an answer; `example` is OpenAPI's.
ANNOTATIONS = frozenset(
    {
        *("$comment", "default", "deprecated", "description", "example", "examples"),
        *("readOnly", "title", "writeOnly"),
    }
)
# Only at the root: nested ones change what a `$ref` means.
ROOT = frozenset({"$id", "$schema", *GROUPS})
# Each name is a text.
ANY_NAME: tuple[Part, ...] = ({}, {"type": "string"})
# Of OpenAPI: what llama.cpp writes for these types is always of them. It writes integers of 16
# digits, which are within 64 bits.
NUMBER_FORMATS: Mapping[str, frozenset[str]] = {
    "integer": frozenset({"int64"}),
    "number": frozenset({"double", "float"}),
}
MAX_INT32 = 2**31 - 1


def plain(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a format with the plain form of its schema."""
    json_schema = (response_format or {}).get("json_schema") or {}
    schema = json_schema.get("schema")
    if response_format is None or not isinstance(schema, dict):
        return response_format
    # Before draft 2020-12 `items` stood alone, and `prefixItems` said nothing.
    has_prefixes = "2020-12" in str(schema.get("$schema", "2020-12"))
    plain_schema = _plain(schema, has_prefixes=has_prefixes, depth=0)
    return {**response_format, "json_schema": {**json_schema, "schema": plain_schema}}


def _plain(part: Any, *, has_prefixes: bool, depth: int) -> Any:  # noqa: ANN401  # any JSON
    if not isinstance(part, dict) or depth > MAX_DEPTH:  # both are refused by the checks
        return part

    def inner(value: Any) -> Any:  # noqa: ANN401  # any JSON
        return _plain(value, has_prefixes=has_prefixes, depth=depth + 1)

    keywords = {
        keyword: value
        for keyword, value in _without_wrapper(part).items()
        if not _asks_nothing(keyword, value, part, has_prefixes=has_prefixes)
    }
    for keyword in ("properties", *GROUPS):
        if isinstance(keywords.get(keyword), dict):
            keywords[keyword] = {name: inner(value) for name, value in keywords[keyword].items()}
    for keyword in ("anyOf", "oneOf", "prefixItems"):
        if isinstance(keywords.get(keyword), list):
            keywords[keyword] = [inner(value) for value in keywords[keyword]]
    for keyword in ("additionalProperties", "items"):
        if keyword in keywords:
            keywords[keyword] = inner(keywords[keyword])
    return keywords


def _without_wrapper(part: Part) -> Part:
    """Return what an `allOf` of one `$ref` stands for, as tools wrap it to put a title beside."""
    members = part.get("allOf")
    if not isinstance(members, list) or len(members) != 1 or not isinstance(members[0], dict):
        return part
    rest = {keyword: value for keyword, value in part.items() if keyword != "allOf"}
    is_alone = "$ref" in members[0] and rest.keys() <= ANNOTATIONS | ROOT
    is_bare = members[0].keys() <= ANNOTATIONS | {"$ref"}
    return {**members[0], **rest} if is_alone and is_bare else part


def _asks_nothing(keyword: str, value: Any, part: Part, *, has_prefixes: bool) -> bool:  # noqa: ANN401  # any JSON
    if keyword == "uniqueItems":
        return value is False
    if keyword == "patternProperties":
        return isinstance(value, dict) and not value
    if keyword == "propertyNames":
        return value in ANY_NAME
    if keyword == "items":  # llama.cpp writes the items of `prefixItems`, and no more
        return has_prefixes and isinstance(value, bool) and "prefixItems" in part
    return keyword == "format" and isinstance(value, str) and _is_empty_format(value, part)


def _is_empty_format(name: str, part: Part) -> bool:
    types = part.get("type")
    types = [each for each in types if each != "null"] if isinstance(types, list) else [types]
    if len(types) != 1 or not isinstance(types[0], str):
        return False
    if (types[0], name) == ("integer", "int32"):
        return _is_within(part, ("minimum", "exclusiveMinimum")) and _is_within(
            part, ("maximum", "exclusiveMaximum")
        )
    return name in NUMBER_FORMATS.get(types[0], ())


def _is_within(part: Part, keywords: tuple[str, str]) -> bool:
    """Return whether one of the bounds is there, and is an integer of 32 bits."""
    bounds = [part[keyword] for keyword in keywords if keyword in part]
    return any(isinstance(bound, int | float) and abs(bound) <= MAX_INT32 for bound in bounds)
