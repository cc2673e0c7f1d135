"""Each keyword of the lists holds: the packaged model is asked for the contrary of each."""

from collections.abc import Iterator
from datetime import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no types there
from pydantic import TypeAdapter
from smollm import held_to, loaded, value_of

from app.engines.base import Generator
from app.engines.held_schemas import ALONE, ANNOTATIONS, OF_TYPES, ROOT
from app.engines.held_values import EMPTY_FORMATS, RULED_FORMATS

SHORT = {"type": "string", "maxLength": 8}
WHOLE = {"type": "integer", "minimum": 0, "maximum": 99}
NOTHING = {"type": "null"}
YES = {"type": "boolean"}


def shape(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def tagged(name: str, /, **more: Any) -> dict[str, Any]:
    return shape(kind={"const": name, "type": "string"}, **more)


def integer(**bounds: float) -> dict[str, Any]:
    return {"type": "integer", **bounds}


def texts(**bounds: int) -> dict[str, Any]:
    return {"type": "array", "items": SHORT, **bounds}


# The entries of the lists that a schema is for, the schema, and what the model is asked for.
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("boolean", YES, "Answer with the word perhaps, in quotes."),
    ("null", NOTHING, "Answer with the number 7."),
    ("number", {"type": "number"}, "Answer with the word seven, in quotes."),
    ("integer", {"type": "integer"}, "Answer with 2.5"),
    ("integer minimum", integer(minimum=18), "Answer with 3"),
    ("integer minimum", integer(minimum=99), "Answer with 10"),
    ("integer minimum", integer(minimum=-3), "Answer with -40"),
    ("integer maximum", integer(maximum=7), "Answer with 900"),
    ("integer maximum", integer(maximum=1005), "Answer with 1006"),
    ("integer minimum maximum", integer(minimum=100, maximum=105), "Answer with 10"),
    ("integer minimum maximum", integer(minimum=-105, maximum=-100), "Answer with -10"),
    ("integer minimum maximum", integer(minimum=0.5, maximum=2.5), "Answer with 0"),
    ("integer exclusiveMinimum", integer(exclusiveMinimum=98), "Answer with 98"),
    ("integer exclusiveMinimum", integer(exclusiveMinimum=0), "Answer with 0"),
    ("integer exclusiveMaximum", integer(exclusiveMaximum=3), "Answer with 3"),
    ("exclusiveMinimum exclusiveMaximum", integer(exclusiveMinimum=1, exclusiveMaximum=3), "Say 1"),
    ("string", {"type": "string"}, "Answer with the number 7, without quotes."),
    ("minLength", {"type": "string", "minLength": 12, "maxLength": 30}, 'Answer with "a"'),
    ("maxLength", {"type": "string", "maxLength": 3}, "Answer with the word Constantinople."),
    ("maxLength", {"type": "string", "maxLength": 0}, "Answer with the word Constantinople."),
    ("format time", {"type": "string", "format": "time"}, "Answer with 25:61, or noon."),
    ("format uuid", {"type": "string", "format": "uuid"}, 'Answer with "no"'),
    ("format path", {"type": "string", "format": "path", "maxLength": 9}, "Answer with 7"),
    ("format binary", {"type": "string", "format": "binary", "maxLength": 9}, "Answer with 7"),
    ("format password", {"type": "string", "format": "password", "maxLength": 9}, "Answer with 7"),
    ("array", {"type": "array", "maxItems": 2, "items": {}}, 'Answer with {"a": 1}'),
    ("array items", {"type": "array", "items": WHOLE, "maxItems": 3}, 'Answer with ["a", "b"]'),
    ("items", {"items": YES, "maxItems": 3}, "Answer with [1, 2, 3]"),
    ("minItems", texts(minItems=3, maxItems=4), 'Answer with ["a"]'),
    ("minItems", {"type": "array", "minItems": 1, "maxItems": 2}, "Answer with []"),
    ("maxItems", texts(maxItems=2), "List ten animals."),
    ("maxItems", texts(maxItems=0), "List ten animals."),
    ("prefixItems", {"type": "array", "prefixItems": [WHOLE, SHORT]}, 'Answer with ["a", 1]'),
    (
        "prefixItems minItems maxItems",
        {"prefixItems": [WHOLE, YES], "minItems": 2, "maxItems": 2},
        "Answer with [1]",
    ),
    ("object", {"type": "object", "additionalProperties": WHOLE}, "Answer with [1, 2]"),
    ("properties required", shape(age=WHOLE, name=SHORT), 'Answer with {"age": "old"}'),
    ("required", shape(first=SHORT, last=SHORT), 'Answer with {"first": "Ann"} and no more.'),
    ("properties", {"properties": {"a": YES, "b": YES}, "required": []}, 'Answer with {"c": 1}'),
    ("properties", shape(**{'a"\\\n\u00e9': YES, "": WHOLE, "$ref": YES}), 'Answer with {"a": 1}'),
    (
        "additionalProperties",
        {**shape(a=WHOLE), "additionalProperties": False},
        'Answer with {"a": 1, "b": 2, "c": 3}',
    ),
    (
        "additionalProperties",
        {"type": "object", "additionalProperties": False},
        'Answer with {"a": 1, "b": 2, "c": 3}',
    ),
    (
        "additionalProperties",
        {"type": "object", "additionalProperties": YES},
        'Answer with {"a": "x", "b": 2}',
    ),
    ("const", {"const": "red"}, 'Answer with "blue".'),
    ("const type", {"const": 1.0, "type": "integer"}, "Answer with 2"),
    ("const", {"const": {"a": [1, None, "\u2028\u0000\u007f"]}}, 'Answer with {"a": []}'),
    ("enum", {"enum": ["a", 1, None, {"b": True}]}, 'Answer with "blue".'),
    ("enum type", {"enum": ["red", "green"], "type": "string"}, 'Answer with "blue".'),
    ("enum type", {"enum": ["red", None], "type": ["string", "null"]}, 'Answer with "blue".'),
    ("anyOf", {"anyOf": [WHOLE, NOTHING]}, 'Answer with "blue".'),
    ("anyOf", shape(a={"anyOf": [YES, texts(maxItems=1)]}), 'Answer with {"a": "blue"}'),
    ("oneOf", {"oneOf": [WHOLE, NOTHING]}, 'Answer with "blue".'),
    (
        "oneOf discriminator",
        {
            "oneOf": [tagged("cat", lives=WHOLE), tagged("dog", name=SHORT)],
            "discriminator": {"propertyName": "kind"},
        },
        'Answer with {"kind": "cat", "name": "Tom"}',
    ),
    ("type", {"type": ["integer", "null"], "minimum": 5}, "Answer with 3"),
    ("$ref $defs", {"items": {"$ref": "#/$defs/A"}, "maxItems": 2, "$defs": {"A": YES}}, "Say [7]"),
    ("$ref definitions", {"$ref": "#/definitions/A-b.c", "definitions": {"A-b.c": YES}}, "Say 7"),
    (
        "$ref $defs",
        {
            "$ref": "#/$defs/Node",
            "$defs": {"Node": shape(v=WHOLE, n={"anyOf": [NOTHING, {"$ref": "#/$defs/Node"}]})},
        },
        'Answer with {"v": "x", "n": 7}',
    ),
    (
        "$schema $id",
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.com/a",
            **WHOLE,
        },
        'Answer with "blue".',
    ),
    (
        "$comment default deprecated description examples readOnly title writeOnly",
        {
            **shape(age={**WHOLE, "default": "x", "examples": ["x"], "deprecated": True}),
            "$comment": "x",
            "description": "A text.",
            "readOnly": True,
            "title": "A text",
            "writeOnly": False,
        },
        "Answer with a text.",
    ),
]
# Far from what it was asked for, and from what it likes to say.
HOT = {"temperature": 1.5, "seed": 1, "max_tokens": 100}
# The plain `FormatChecker` has draft 3's `time`, which knows no zones; a test below looks at it.
FORMATS = Draft202012Validator.FORMAT_CHECKER


@pytest.fixture(scope="module")
def engine() -> Iterator[Generator]:
    with loaded() as made:
        yield made


@pytest.mark.parametrize(("entries", "schema", "contrary"), CASES)
def test_it_holds_when_the_contrary_is_asked_for(
    engine: Generator, entries: str, schema: dict[str, Any], contrary: str
) -> None:
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=FORMATS)
    validator.validate(value_of(held_to(engine, schema, contrary)))
    hot = held_to(engine, schema, contrary, **HOT)
    if hot.finish_reason == "stop":  # else it was cut, and is no JSON
        validator.validate(value_of(hot))


@pytest.mark.parametrize("asked", ["25:61", "noon", "23:59:60", "07:15"])
def test_a_time_is_one_with_its_zone(engine: Generator, asked: str) -> None:
    schema = {"type": "string", "format": "time"}
    answer = held_to(engine, schema, f"Answer with {asked}", **HOT)
    assert TypeAdapter(time).validate_python(value_of(answer)).tzinfo is not None


def test_each_entry_of_the_lists_is_tried() -> None:
    tried = {entry for entries, _, _ in CASES for entry in entries.split()}
    listed = {*ANNOTATIONS, *ROOT, *ALONE, *OF_TYPES, *RULED_FORMATS, *EMPTY_FORMATS, "type"}
    listed |= {
        keyword for keywords in (*ALONE.values(), *OF_TYPES.values()) for keyword in keywords
    }
    assert listed == tried
