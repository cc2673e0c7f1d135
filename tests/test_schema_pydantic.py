"""What Pydantic writes of common types is held by the packaged model, or refused by its name."""

from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    UUID4,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    SecretStr,
    StringConstraints,
    TypeAdapter,
)
from smollm import held_to, loaded, value_of

from app.engines.chat_base import Generator
from app.errors import OptionsRefusedError

Short = Annotated[str, Field(max_length=8)]
Small = Annotated[int, Field(ge=0, le=9)]


class Color(Enum):
    RED = "red"
    FIRST = 1


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    name: Short | None = None


class Pet(BaseModel):
    """A pet."""

    model_config = ConfigDict(extra="forbid")

    animal: Annotated[Cat | Dog, Field(discriminator="kind")]
    color: Color = Color.RED


class Node(BaseModel):
    value: Small
    following: "Node | None"


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow")

    a: int


class Fallback(BaseModel):
    """Without its tag an answer to one kind may be one to the other."""

    kind: Literal["fallback"] = "fallback"


HELD: list[tuple[Any, str]] = [
    (bool, 'Answer with "perhaps".'),
    (float, 'Answer with "seven".'),
    (Small | None, 'Answer with "blue".'),
    (int | bool, 'Answer with "blue".'),
    (Annotated[int, Field(gt=0, lt=3)], "Answer with 900."),
    (Annotated[int, Field(ge=18)], "Answer with 3."),
    (Annotated[int, Field(ge=1900, le=2100)], "Answer with 19."),
    (Annotated[str, Field(min_length=2, max_length=5)], 'Answer with "Constantinople".'),
    (Literal["a", 1] | None, 'Answer with "blue".'),
    (Color, 'Answer with "blue".'),
    (Pet, 'Answer with {"animal": {"kind": "cat", "name": "Tom"}, "color": "blue"}.'),
    (Node, 'Answer with {"value": 12, "following": null}.'),
    (Annotated[list[Short], Field(min_length=1, max_length=2)], "Answer with []."),
    (tuple[Small, Short], 'Answer with ["a", 1, 2].'),
    (dict[str, bool], 'Answer with {"raining": "blue"} and nothing else.'),
    (time, 'Answer with "noon".'),
    (UUID | Small, "Answer with 3."),
    (Annotated[SecretStr, Field(max_length=8)], "Answer with 3."),
]
REFUSED: list[tuple[Any, str]] = [
    (Annotated[float, Field(ge=0)], "minimum"),
    (Annotated[int, Field(multiple_of=5)], "multipleOf"),
    (Annotated[int, Field(ge=1900)], "minimum"),
    (Annotated[int, Field(lt=0)], "exclusiveMaximum"),
    (Annotated[str, StringConstraints(pattern="^a+$")], "pattern"),
    (set[int], "uniqueItems"),
    (frozenset[str], "uniqueItems"),
    (dict[Color, int], "propertyNames"),
    (dict[Annotated[str, StringConstraints(pattern="^a+$")], int], "patternProperties"),
    (date, "format"),
    (datetime, "format"),
    (timedelta, "format"),
    (UUID4, "format"),
    (AnyUrl, "format"),
    (Annotated[Decimal, Field(ge=0)], "minimum"),
    (Json, "contentMediaType"),
    (Loose, "additionalProperties"),
    (Annotated[Fallback | Dog, Field(discriminator="kind")], "oneOf"),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Generator]:
    with loaded() as made:
        yield made


@pytest.mark.parametrize(("kind", "contrary"), HELD)
def test_it_holds_when_the_contrary_is_asked_for(
    engine: Generator, kind: Any, contrary: str
) -> None:
    adapter = TypeAdapter(kind)
    answer = held_to(engine, adapter.json_schema(), contrary)
    value_of(answer)
    adapter.validate_json(answer.text)


@pytest.mark.parametrize(("kind", "keyword"), REFUSED)
def test_it_is_refused_by_its_name(engine: Generator, kind: Any, keyword: str) -> None:
    with pytest.raises(OptionsRefusedError, match=f"held to `{keyword}` in the JSON schema"):
        held_to(engine, TypeAdapter(kind).json_schema(), "Say hi.")


def test_a_path_and_plain_bytes_are_any_text(engine: Generator) -> None:
    class Both(BaseModel):
        path: Annotated[Path, Field(description="x")]
        data: bytes

    answer = held_to(engine, Both.model_json_schema(), 'Answer with {"path": "/a", "data": "b"}.')
    assert Both.model_validate_json(answer.text).data
