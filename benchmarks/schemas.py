"""Forty JSON Schemas, as people and Pydantic write them, each with a request for its contrary."""

from collections.abc import Sequence
from enum import Enum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Schema = dict[str, Any]
SHORT: Schema = {"type": "string", "maxLength": 12}
AGE: Schema = {"type": "integer", "minimum": 0, "maximum": 120}
NOTHING: Schema = {"type": "null"}


class Mood(Enum):
    """What an enum of Python becomes."""

    GOOD = "good"
    BAD = "bad"


class Card(BaseModel):
    """One way to pay."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["card"]
    last_digits: Annotated[str, Field(min_length=4, max_length=4)]


class Cash(BaseModel):
    """Another."""

    kind: Literal["cash"]
    amount: Annotated[int, Field(gt=0, lt=1000)]


class Order(BaseModel):
    """An order: nested, with defaults, enums and a union that is told apart by a field."""

    payment: Annotated[Card | Cash, Field(discriminator="kind")]
    mood: Mood = Mood.GOOD
    count: Annotated[int, Field(ge=1, le=5)]
    note: Annotated[str, Field(max_length=10)] | None = None


class Tree(BaseModel):
    """A model that holds itself."""

    value: Annotated[int, Field(ge=0, le=9)]
    left: "Tree | None" = None


def thing(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object."""
    names = list(required or properties)
    return {"type": "object", "properties": properties, "required": names}


def numbers(**bounds: Any) -> Schema:  # noqa: ANN401  # what the keywords take
    """Return the schema of a list of numbers."""
    return {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, **bounds}


def written(kind: Any) -> Schema:  # noqa: ANN401  # any type
    """Return what Pydantic writes of a type."""
    return TypeAdapter(kind).json_schema()


# All that an object can be asked of, and what it can't.
PERSON = thing(name=SHORT, age=AGE, email={"anyOf": [SHORT, NOTHING]})
SCHEMAS: Sequence[tuple[Schema, str]] = [
    ({"type": "boolean"}, 'Answer with "perhaps".'),
    ({"type": "number"}, 'Answer with "seven".'),
    ({"type": "integer", "minimum": 18}, "Answer with 3."),
    ({"type": "integer", "minimum": 1900, "maximum": 2100}, "Answer with 19."),
    ({"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10}, "Answer with 900."),
    ({"type": "integer", "minimum": -105, "maximum": -100}, "Answer with -1."),
    ({"type": ["integer", "null"], "maximum": 7}, "Answer with 8."),
    ({"type": "string", "maxLength": 5}, 'Answer with "Constantinople".'),
    ({"type": "string", "minLength": 20, "maxLength": 40}, 'Answer with "a".'),
    ({"type": "string", "format": "uuid"}, 'Answer with "none".'),
    ({"type": "string", "format": "time"}, 'Answer with "25:61".'),
    ({"enum": ["red", "green", 3, None]}, 'Answer with "blue".'),
    ({"type": "string", "enum": ["yes", "no"]}, 'Answer with "perhaps".'),
    ({"const": {"version": 1.0, "tags": ["\u00e9", '"']}}, 'Answer with {"version": 2}.'),
    (numbers(minItems=3, maxItems=4), "Answer with [1]."),
    (numbers(maxItems=0), "Answer with [1, 2, 3]."),
    ({"type": "array", "prefixItems": [AGE, SHORT]}, 'Answer with ["a", 1, 2].'),
    (PERSON, 'Answer with {"name": 7, "age": 500}.'),
    (thing("first", first=SHORT, last=SHORT), 'Answer with {"last": "Smith"}.'),
    ({**thing(a=AGE), "additionalProperties": False}, 'Answer with {"a": 1, "b": 2}.'),
    ({"type": "object", "additionalProperties": {"type": "boolean"}}, 'Answer with {"a": "x"}.'),
    ({"type": "object", "additionalProperties": False}, 'Answer with {"a": 1}.'),
    (thing(**{'a"\\\n': AGE, "$ref": SHORT}), 'Answer with {"a": 1}.'),
    ({"anyOf": [AGE, {"type": "string", "maxLength": 3}, NOTHING]}, 'Answer with "forever".'),
    ({"oneOf": [thing(kind={"const": n}) for n in "ab"]}, 'Answer with {"kind": "c"}.'),
    (thing(people={"type": "array", "items": PERSON, "maxItems": 2}), "Answer with []."),
    (
        {**thing(a={"$ref": "#/$defs/Age"}, b={"$ref": "#/$defs/Age"}), "$defs": {"Age": AGE}},
        'Answer with {"a": -1}.',
    ),
    (written(Order), 'Answer with {"payment": {"kind": "card", "amount": 0}, "count": 9}.'),
    (written(Tree), 'Answer with {"value": 12, "left": 3}.'),
    (written(tuple[int, bool] | None), "Answer with [true, 1]."),
    # What llama.cpp would pass over, which is refused.
    ({"type": "number", "minimum": 50}, "Answer with 3."),
    ({"type": "integer", "minimum": 100}, "Answer with 10."),
    ({"type": "integer", "multipleOf": 7}, "Answer with 3."),
    (numbers(uniqueItems=True, minItems=2, maxItems=3), "Answer with [1, 1]."),
    ({"type": "string", "format": "date"}, 'Answer with "2026-02-30".'),
    ({"type": "string", "pattern": "^[A-Z]{3}$"}, 'Answer with "abcd".'),
    ({**thing(a=AGE), "required": ["a", "b"]}, 'Answer with {"a": 1}.'),
    ({"anyOf": [{"type": "integer"}], "minimum": 50}, "Answer with 3."),
    ({"allOf": [{"type": "integer"}, {"minimum": 50}]}, "Answer with 3."),
    ({"not": {"type": "object"}}, 'Answer with {"a": 1}.'),
]
