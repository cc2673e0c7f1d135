"""Which JSON Schemas a grammar can enforce without delaying other generations.

llama.cpp checks its whole vocabulary against the grammar before each token, in the one loop that
all generations share. With 2,000 values in an `enum` that takes longer than clients wait; the
properties of a schema that people write cost next to nothing. It has a rule for each character that
a text may have, and for each item of a list, and makes all of them in that loop.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from app.errors import OptionsRefusedError

# Measured on 2 cores: a short answer took 0.4 s longer with 100 values of an enum, 1.7 s with 500,
# more than 10 s with 2,000.
MAX_ALTERNATIVES = 256
MAX_CHARS = 16_384
# Measured on 2 cores: 50,000 took 20 ms, 100,000 80 ms, 500,000 360 ms.
MAX_REPETITIONS = 50_000
# The keys in these are names of the client's, not keywords.
NAMED = frozenset({"properties", "$defs", "definitions", "patternProperties"})
# The values of these are data.
DATA = frozenset({"const", "default", "enum", "example", "examples"})
ALTERNATIVES = frozenset({"anyOf", "enum", "oneOf", "properties", "type"})
REPETITIONS = (("minLength", "maxLength"), ("minItems", "maxItems"))


def check_cost(
    response_format: Mapping[str, Any] | None,
    *,
    max_alternatives: int = MAX_ALTERNATIVES,
    max_chars: int = MAX_CHARS,
) -> None:
    """Check that a format's grammar is cheap.

    Args:
        response_format: OpenAI's; only one with a schema has a cost.
        max_alternatives: properties, enum values and other alternatives.
        max_chars: of the schema.

    Raises:
        OptionsRefusedError: its schema is too long, nested too deeply, or has too many
            alternatives or repetitions.

    """
    schema = ((response_format or {}).get("json_schema") or {}).get("schema")
    try:
        chars = len(json.dumps(schema, ensure_ascii=False))
    except RecursionError:
        raise _refuse("The JSON schema is nested too deeply.") from None
    if chars > max_chars:
        raise _refuse(f"The JSON schema is longer than {max_chars} characters.")
    count = repetitions = 0
    for part in _schemas(schema):
        alternatives = [value for keyword, value in part.items() if keyword in ALTERNATIVES]
        count += sum(len(value) for value in alternatives if isinstance(value, list | dict))
        repetitions += _repetitions(part)
    if count > max_alternatives:
        raise _refuse(
            f"The JSON schema has {count} properties, enum values and other alternatives;"
            f" {max_alternatives} are allowed."
        )
    if repetitions > MAX_REPETITIONS:
        raise _refuse(
            f"The `maxLength` and `maxItems` of the JSON schema are {repetitions} together;"
            f" {MAX_REPETITIONS} are allowed."
        )


def _refuse(detail: str) -> OptionsRefusedError:
    return OptionsRefusedError(detail, extensions={"field": "response_format"})


def _repetitions(part: Mapping[str, Any]) -> int:
    """Return how often one schema repeats a rule; other checks refuse what isn't a number."""
    bounds = [[part[keyword] for keyword in pair if keyword in part] for pair in REPETITIONS]
    return sum(
        max((bound for bound in pair if isinstance(bound, int)), default=0) for pair in bounds
    )


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
