"""Makes up an item that a JSON Schema describes, for a first call."""

import math
from collections.abc import Mapping
from typing import Any, Final

LOCAL: Final = "#/$defs/"
MAX_DEPTH: Final = 20  # of a schema that refers to itself
TEXT: Final = "text"
FORMATS: Final = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "uri": "https://example.com/",
    "email": "someone@example.com",
    "base64": "",
    "binary": "",
}
CHOICES: Final = ("anyOf", "oneOf", "allOf")


def sample(schema: Mapping[str, Any]) -> Any:  # noqa: ANN401  # any JSON
    """Return a value that the schema accepts, as far as its bounds tell: patterns aren't solved."""
    return _sample(schema, schema.get("$defs", {}), 0)


def _sample(schema: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> Any:  # noqa: ANN401  # as above
    if depth > MAX_DEPTH:
        return None
    for given in ("examples", "enum"):
        if schema.get(given):
            return schema[given][0]
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    if "$ref" in schema:
        return _sample(known.get(schema["$ref"].removeprefix(LOCAL), {}), known, depth + 1)
    for word in CHOICES:
        if schema.get(word):
            return _sample(schema[word][0], known, depth + 1)
    return _of_type(schema, known, depth)


def _of_type(schema: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> Any:  # noqa: ANN401  # as above
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0]
    if kind == "object":
        needed = schema.get("required", ())
        parts = schema.get("properties", {})
        return {name: _sample(parts.get(name, {}), known, depth + 1) for name in needed}
    if kind == "array":
        return _array(schema, known, depth)
    if kind == "string":
        return _text(schema)
    if kind == "null":
        return None
    return kind == "boolean" or _number(schema, is_whole=kind == "integer")


def _array(schema: Mapping[str, Any], known: Mapping[str, Any], depth: int) -> list[Any]:
    first = [_sample(one, known, depth + 1) for one in schema.get("prefixItems", ())]
    count = max(schema.get("minItems", 1) - len(first), 0 if first else 1)
    if not schema.get("items"):
        return first
    return first + [_sample(schema["items"], known, depth + 1)] * count


def _text(schema: Mapping[str, Any]) -> str:
    text = FORMATS.get(schema.get("format", ""), "" if "contentEncoding" in schema else TEXT)
    text += "x" * (int(schema.get("minLength", 0)) - len(text))
    return text[: int(schema.get("maxLength", len(text)))]


def _number(schema: Mapping[str, Any], *, is_whole: bool) -> float:
    step = schema.get("multipleOf", 1)
    gap = step if is_whole else 1
    low = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf) + gap)
    high = schema.get("maximum", schema.get("exclusiveMaximum", math.inf) - gap)
    if low > high:
        return float(low + high) / 2  # between bounds that it may not touch
    value = min(max(step, low), high)
    return step * math.ceil(value / step) if is_whole else float(value)
