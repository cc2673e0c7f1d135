"""Which JSON Schemas a grammar can keep to without stopping everybody else's generations.

llama.cpp checks its whole vocabulary against the grammar before each token, in the one loop that
all generations share. With 2,000 values in an `enum`, or 60 characters of `pattern`, that takes
longer than anybody waits; the properties of a schema that people write cost next to nothing.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import OptionsRefusedError

# Measured on 2 cores: a short answer took 0.4 s longer with 100 values of an enum, 1.7 s with 500,
# more than 10 s with 2,000.
MAX_ALTERNATIVES = 256
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
    for keyword, value in _keywords(schema):
        if keyword == "pattern":
            raise _refuse("A JSON schema's `pattern` is not supported.")
        if keyword in ALTERNATIVES and isinstance(value, list | dict):
            count += len(value)
    if count > MAX_ALTERNATIVES:
        raise _refuse(
            f"The JSON schema has {count} properties, enum values and other alternatives;"
            f" {MAX_ALTERNATIVES} are allowed."
        )


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
