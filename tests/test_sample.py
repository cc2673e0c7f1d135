"""Items that `app models check` makes up are what their schema accepts."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # no types there

from app.doctor.sample import sample

NUMBER = {"type": "number"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": "string", "minLength": 9},
        {"type": "string", "maxLength": 2},
        {"type": "string", "format": "date-time"},
        {"type": "string", "enum": ["red", "green"]},
        {"const": 7},
        {"type": "boolean"},
        {"type": "null"},
        {"type": ["integer", "null"]},
        NUMBER,
        {"type": "number", "minimum": 5, "maximum": 6},
        {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        {"type": "integer", "exclusiveMinimum": 3},
        {"type": "integer", "maximum": -4},
        {"type": "integer", "minimum": 10, "multipleOf": 5},
        {"type": "array", "items": NUMBER},
        {"type": "array", "items": NUMBER, "minItems": 3, "maxItems": 3},
        {"type": "array", "prefixItems": [NUMBER, {"type": "string"}], "maxItems": 2},
        {"type": "array", "items": {"type": "array", "items": NUMBER, "minItems": 2}},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {
            "type": "object",
            "properties": {"a": NUMBER, "b": {"type": "string"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "$defs": {"Age": {"type": "integer", "minimum": 18}},
            "type": "object",
            "properties": {"age": {"$ref": "#/$defs/Age"}},
            "required": ["age"],
        },
        {},
    ],
)
def test_a_made_up_item_is_one_of_the_schema(schema: dict[str, Any]) -> None:
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    assert validator.is_valid(sample(schema)), sample(schema)


def test_an_example_or_a_default_of_the_schema_comes_first() -> None:
    assert sample({"type": "string", "examples": ["Rome", "Köln"]}) == "Rome"
    assert sample({"type": "integer", "default": 3}) == 3


def test_a_schema_of_itself_ends() -> None:
    tree = {
        "type": "object",
        "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
        "required": ["children"],
    }
    assert sample({"$defs": {"Tree": tree}, "$ref": "#/$defs/Tree"})
