"""Each keyword of the lists holds: the packaged model is asked for the contrary of each."""

from collections.abc import Iterator
from datetime import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no types there
from pydantic import TypeAdapter
from small_smollm import write_small
from smollm import gguf, held_to, loaded, value_of

from app.engines.chat_base import Generator
from app.engines.llama_cpp.held_schemas import ALONE, OF_TYPES
from app.engines.llama_cpp.held_values import EMPTY_FORMATS, RULED_FORMATS
from app.engines.llama_cpp.plain_schemas import ANNOTATIONS, ROOT

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


# A schema, and what the model is asked for.
CASES: list[tuple[dict[str, Any], str]] = [
    (YES, "Answer with the word perhaps, in quotes."),
    (NOTHING, "Answer with the number 7."),
    ({"type": "number"}, "Answer with the word seven, in quotes."),
    ({"type": "integer"}, "Answer with 2.5"),
    (integer(minimum=18), "Answer with 3"),
    (integer(minimum=99), "Answer with 10"),
    (integer(minimum=-3), "Answer with -40"),
    (integer(maximum=7), "Answer with 900"),
    (integer(maximum=1005), "Answer with 1006"),
    (integer(minimum=100, maximum=105), "Answer with 10"),
    (integer(minimum=-105, maximum=-100), "Answer with -10"),
    (integer(minimum=0.5, maximum=2.5), "Answer with 0"),
    (integer(exclusiveMinimum=98), "Answer with 98"),
    (integer(exclusiveMinimum=0), "Answer with 0"),
    (integer(exclusiveMaximum=3), "Answer with 3"),
    (integer(exclusiveMinimum=1, exclusiveMaximum=3), "Say 1"),
    ({"type": "string"}, "Answer with the number 7, without quotes."),
    ({"type": "string", "minLength": 12, "maxLength": 30}, 'Answer with "a"'),
    ({"type": "string", "maxLength": 3}, "Answer with the word Constantinople."),
    ({"type": "string", "maxLength": 0}, "Answer with the word Constantinople."),
    ({"type": "string", "format": "time"}, "Answer with 25:61, or noon."),
    ({"type": "string", "format": "uuid"}, 'Answer with "no"'),
    ({"type": "string", "format": "path", "maxLength": 9}, "Answer with 7"),
    ({"type": "string", "format": "binary", "maxLength": 9}, "Answer with 7"),
    ({"type": "string", "format": "password", "maxLength": 9}, "Answer with 7"),
    ({"type": "array", "maxItems": 2, "items": {}}, 'Answer with {"a": 1}'),
    ({"type": "array", "items": WHOLE, "maxItems": 3}, 'Answer with ["a", "b"]'),
    ({"items": YES, "maxItems": 3}, "Answer with [1, 2, 3]"),
    (texts(minItems=3, maxItems=4), 'Answer with ["a"]'),
    ({"type": "array", "minItems": 1, "maxItems": 2}, "Answer with []"),
    (texts(maxItems=2), "List ten animals."),
    (texts(maxItems=0), "List ten animals."),
    ({"type": "array", "prefixItems": [WHOLE, SHORT]}, 'Answer with ["a", 1]'),
    (
        {"prefixItems": [WHOLE, YES], "minItems": 2, "maxItems": 2},
        "Answer with [1]",
    ),
    ({"type": "object", "additionalProperties": WHOLE}, "Answer with [1, 2]"),
    (shape(age=WHOLE, name=SHORT), 'Answer with {"age": "old"}'),
    (shape(first=SHORT, last=SHORT), 'Answer with {"first": "Ann"} and no more.'),
    ({"properties": {"a": YES, "b": YES}, "required": []}, 'Answer with {"c": 1}'),
    (shape(**{'a"\\\n\u00e9': YES, "": WHOLE, "$ref": YES}), 'Answer with {"a": 1}'),
    (
        {**shape(a=WHOLE), "additionalProperties": False},
        'Answer with {"a": 1, "b": 2, "c": 3}',
    ),
    (
        {"type": "object", "additionalProperties": False},
        'Answer with {"a": 1, "b": 2, "c": 3}',
    ),
    (
        {"type": "object", "additionalProperties": YES},
        'Answer with {"a": "x", "b": 2}',
    ),
    ({"const": "red"}, 'Answer with "blue".'),
    ({"const": 1.0, "type": "integer"}, "Answer with 2"),
    ({"const": {"a": [1, None, "\u2028\u0000\u007f"]}}, 'Answer with {"a": []}'),
    ({"enum": ["a", 1, None, {"b": True}]}, 'Answer with "blue".'),
    ({"enum": ["red", "green"], "type": "string"}, 'Answer with "blue".'),
    ({"enum": ["red", None], "type": ["string", "null"]}, 'Answer with "blue".'),
    ({"anyOf": [WHOLE, NOTHING]}, 'Answer with "blue".'),
    (shape(a={"anyOf": [YES, texts(maxItems=1)]}), 'Answer with {"a": "blue"}'),
    ({"oneOf": [WHOLE, NOTHING]}, 'Answer with "blue".'),
    (
        {
            "oneOf": [tagged("cat", lives=WHOLE), tagged("dog", name=SHORT)],
            "discriminator": {"propertyName": "kind"},
        },
        'Answer with {"kind": "cat", "name": "Tom"}',
    ),
    ({"type": ["integer", "null"], "minimum": 5}, "Answer with 3"),
    ({"items": {"$ref": "#/$defs/A"}, "maxItems": 2, "$defs": {"A": YES}}, "Say [7]"),
    ({"$ref": "#/definitions/A-b.c", "definitions": {"A-b.c": YES}}, "Say 7"),
    (
        {
            "$ref": "#/$defs/Node",
            "$defs": {"Node": shape(v=WHOLE, n={"anyOf": [NOTHING, {"$ref": "#/$defs/Node"}]})},
        },
        'Answer with {"v": "x", "n": 7}',
    ),
    (
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "https://example.com/a",
            **WHOLE,
        },
        'Answer with "blue".',
    ),
    (
        {
            **shape(age={**WHOLE, "default": "x", "examples": ["x"], "deprecated": True}),
            "example": {"age": "x"},
            "$comment": "x",
            "description": "A text.",
            "readOnly": True,
            "title": "A text",
            "writeOnly": False,
        },
        "Answer with a text.",
    ),
    # Names that are nearly those of llama.cpp's own rules.
    (
        shape(integral_part={"type": "integer", "minimum": 1, "maximum": 3}, n={"type": "integer"}),
        'Answer with {"integral_part": 7, "n": "x"}',
    ),
    (
        shape(integral_part=SHORT, decimal_part=SHORT, n={"type": "number"}),
        'Answer with {"integral_part": "x", "decimal_part": "y", "n": "x"}',
    ),
    (
        {**shape(ref_defs_A=SHORT, n={"$ref": "#/$defs/A"}), "$defs": {"A": YES}},
        'Answer with {"ref_defs_A": "x", "n": "x"}',
    ),
    (
        {
            **shape(u={"$ref": "#/$defs/User"}, r={"$ref": "#/$defs/User_role"}),
            "$defs": {"User": shape(name=SHORT), "User_role": YES},
        },
        'Answer with {"u": {"name": "x"}, "r": "x"}',
    ),
    # What asks nothing.
    (
        shape(
            a={"type": "array", "items": WHOLE, "maxItems": 2, "uniqueItems": False},
            b={"prefixItems": [WHOLE, YES], "items": False},
            c={"allOf": [{"$ref": "#/$defs/A"}], "title": "x"},
            d={"type": "number", "format": "double"},
        )
        | {"$defs": {"A": YES}, "patternProperties": {}, "propertyNames": {"type": "string"}},
        'Answer with {"a": ["x"], "b": [1, true, 3], "c": "x", "d": "x"}',
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


@pytest.fixture
def babbler(tmp_path: Path) -> Iterator[Generator]:
    """Load the model without nearly all of its layers."""
    with loaded(file=write_small(gguf(), tmp_path / "small.gguf")) as made:
        yield made


def entries_of(part: dict[str, Any]) -> Iterator[str]:
    """Yield the keywords of a schema and of those in it, the types and the formats."""
    yield from part
    types = part.get("type", [])
    yield from types if isinstance(types, list) else [types]
    if "format" in part:
        yield part["format"]
    inner = [*part.get("anyOf", ()), *part.get("oneOf", ()), *part.get("prefixItems", ())]
    for keyword in ("properties", "$defs", "definitions"):
        inner += part.get(keyword, {}).values()
    inner += [part[keyword] for keyword in ("items", "additionalProperties") if keyword in part]
    for each in inner:
        if isinstance(each, dict):
            yield from entries_of(each)


def validator_of(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FORMATS)


@pytest.mark.parametrize(("schema", "contrary"), CASES)
def test_it_holds_when_the_contrary_is_asked_for(
    engine: Generator, schema: dict[str, Any], contrary: str
) -> None:
    validator_of(schema).validate(value_of(held_to(engine, schema, contrary)))


def test_it_holds_when_the_model_is_far_from_what_it_likes_to_say(babbler: Generator) -> None:
    whole = 0
    for schema, contrary in CASES:
        answer = held_to(babbler, schema, contrary, **HOT)
        if answer.finish_reason == "stop":  # else it was cut, and is no JSON
            validator_of(schema).validate(value_of(answer))
            whole += 1
    assert whole > len(CASES) / 2


def test_an_integer_is_one_of_64_bits(engine: Generator) -> None:
    schema = {"type": "integer", "format": "int64"}
    assert abs(value_of(held_to(engine, schema, f"Answer with {10**25}"))) < 2**63


@pytest.mark.parametrize("asked", ["25:61", "noon", "23:59:60", "07:15"])
def test_a_time_is_one_with_its_zone(engine: Generator, asked: str) -> None:
    schema = {"type": "string", "format": "time"}
    answer = held_to(engine, schema, f"Answer with {asked}", **HOT)
    assert TypeAdapter(time).validate_python(value_of(answer)).tzinfo is not None


def test_each_entry_of_the_lists_is_tried() -> None:
    tried = {entry for schema, _ in CASES for entry in entries_of(schema)}
    listed = {*ANNOTATIONS, *ROOT, *ALONE, *OF_TYPES, *RULED_FORMATS, *EMPTY_FORMATS, "type"}
    listed |= {
        keyword for keywords in (*ALONE.values(), *OF_TYPES.values()) for keyword in keywords
    }
    assert listed - tried == set()
