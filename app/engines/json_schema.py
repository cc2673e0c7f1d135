"""Which JSON Schemas a grammar can keep to without stopping everybody else's generations.

llama.cpp checks its whole vocabulary against the grammar before each token, in the one loop that
all generations share. With 2,000 values in an `enum` that takes longer than anybody waits; the
properties of a schema that people write cost next to nothing.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import OptionsRefusedError

# Measured on 2 cores: a short answer took 0.4 s longer with 100 values of an enum, 1.7 s with 500,
# more than 10 s with 2,000.
MAX_ALTERNATIVES = 256
MAX_CHARS = 16_384
# What these hold is named by the client, and no keyword.
NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})
# What these hold is data.
DATA = frozenset({"const", "default", "enum", "examples"})
ALTERNATIVES = frozenset({"anyOf", "enum", "oneOf", "properties", "type"})


def check_cost(response_format: Mapping[str, Any] | None) -> None:
    """Let a format pass whose grammar is cheap.

    Raises:
        OptionsRefusedError: its schema is too long, nested too deeply, or has too many
            alternatives.

    """
    schema = ((response_format or {}).get("json_schema") or {}).get("schema")
    try:
        chars = len(json.dumps(schema))
    except RecursionError:
        raise _refuse("The JSON schema is nested too deeply.") from None
    if chars > MAX_CHARS:
        raise _refuse(f"The JSON schema is longer than {MAX_CHARS} characters.")
    count = 0
    for part in _schemas(schema):
        held = [value for keyword, value in part.items() if keyword in ALTERNATIVES]
        count += sum(len(value) for value in held if isinstance(value, list | dict))
    if count > MAX_ALTERNATIVES:
        raise _refuse(
            f"The JSON schema has {count} properties, enum values and other alternatives;"
            f" {MAX_ALTERNATIVES} are allowed."
        )


def _refuse(detail: str) -> OptionsRefusedError:
    return OptionsRefusedError(detail, extensions={"field": "response_format"})


def _schemas(schema: Any) -> Iterator[Mapping[str, Any]]:  # noqa: ANN401  # JSON can be anything
    """Yield a schema and those in it, however deep."""
    waiting = [schema]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue
        yield part
        for keyword, value in part.items():
            if keyword in NAMED and isinstance(value, dict):
                waiting += value.values()
            elif keyword not in DATA:
                waiting += value if isinstance(value, list) else [value]
