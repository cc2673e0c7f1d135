"""Which JSON Schemas a grammar can keep to without stopping everybody else's generations.

llama.cpp checks its whole vocabulary against the grammar before each token, in the one loop that
all generations share. With 2,000 values in an `enum`, or 60 characters of `pattern`, that takes
longer than anybody waits; the properties of a schema that people write cost next to nothing.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import OptionsRefusedError

# Measured on 2 cores: a short answer took 0.4 s longer with 100 values of an enum, 1.7 s with 500,
# more than 10 s with 2,000.
MAX_ALTERNATIVES = 256
MAX_CHARS = 16_384
# llama.cpp follows any pointer, into what is data too.
REFERENCE = re.compile(r"#|#/(\$defs|definitions)/[^/]+")
RANGES = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minimum", "maximum"),
    ("minProperties", "maxProperties"),
)
# What these hold is named by the client, and no keyword.
NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})
# What these hold is data.
DATA = frozenset({"const", "default", "enum", "examples"})
ALTERNATIVES = frozenset({"anyOf", "enum", "oneOf", "properties", "type"})


def check_cost(response_format: Mapping[str, Any] | None) -> None:
    """Let a format pass whose grammar is cheap.

    Raises:
        OptionsRefusedError: its schema has a `pattern`, or too many alternatives.

    """
    schema = ((response_format or {}).get("json_schema") or {}).get("schema")
    count = 0
    if len(json.dumps(schema)) > MAX_CHARS:
        raise _refuse(f"The JSON schema is longer than {MAX_CHARS} characters.")
    if isinstance(schema, dict):
        _check_bounds(schema)
    for keyword, value in _keywords(schema):
        if keyword == "pattern":
            raise _refuse("A JSON schema's `pattern` is not supported.")
        if keyword == "$ref" and not (isinstance(value, str) and REFERENCE.fullmatch(value)):
            raise _refuse("A JSON schema's `$ref` must be `#`, or name one of its `$defs`.")
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, dict):
                _check_bounds(part)
        if keyword in ALTERNATIVES and isinstance(value, list | dict):
            count += len(value)
    if count > MAX_ALTERNATIVES:
        raise _refuse(
            f"The JSON schema has {count} properties, enum values and other alternatives;"
            f" {MAX_ALTERNATIVES} are allowed."
        )


def _check_bounds(schema: Mapping[str, Any]) -> None:
    """Refuse a range that holds nothing: llama.cpp looks for it for ever."""
    for least, most in RANGES:
        low, high = schema.get(least), schema.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            raise _refuse(f"The JSON schema's `{least}` is above its `{most}`.")


def _refuse(detail: str) -> OptionsRefusedError:
    return OptionsRefusedError(detail, extensions={"field": "response_format"})


def _keywords(schema: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  # JSON can be anything
    """Yield every keyword of a schema and of those in it."""
    for keyword, value in schema.items() if isinstance(schema, dict) else ():
        yield keyword, value
        if keyword in NAMED and isinstance(value, dict):
            inner = list(value.values())
        else:
            inner = value if isinstance(value, list) else [value]
        for part in inner if keyword not in DATA else ():
            yield from _keywords(part)
