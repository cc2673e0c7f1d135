"""The types that a class may name, and their JSON."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal
from typing import TypedDict as PlainTypedDict

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import Base64Bytes, BaseModel, Field
from typing_extensions import TypedDict

from app.engines.python.failures import UserCallError, UserCodeError
from app.engines.python.json_forms import JsonForm
from app.errors import InvalidRequestError


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    NONE = 0
    ONE = 1


class Share(Enum):
    WHOLE = 1.0


class Choice(BaseModel):
    kind: Literal[1] = 1
    type: Level = Level.ONE
    numbers: Iterable[int] = ()


class Other(BaseModel):
    kind: Literal[2]
    inner: "list[Other]" = []


@dataclass
class Point:
    x: float
    y: int = 0


class Named(TypedDict):
    name: str


class Old(PlainTypedDict):
    name: str


@dataclass
class Photo:
    content: bytes


@dataclass(frozen=True)
class Encoded:
    content: Base64Bytes


class Undecoded(BaseModel):
    content: bytes


class Model(BaseModel):
    day: date
    image: Base64Bytes = b""


def form(annotation: Any) -> JsonForm:
    return JsonForm(annotation, what="it")


ROUND_TRIPS: list[tuple[Any, Any, Any]] = [
    (str, "a", "a"),
    (int, 3, 3),
    (float, 1, 1.0),
    (bool, True, True),
    (str | None, None, None),
    (bytes, "AAH_", b"\x00\x01\xff"),
    (list[bytes], ["AAH_"], [b"\x00\x01\xff"]),
    (list[float], [1.5, 2], [1.5, 2.0]),
    (tuple[int, str], [1, "a"], (1, "a")),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (Colour, "red", Colour.RED),
    (Literal[0, "x"], 0, 0),
    (Literal[0, "x"], "x", "x"),
    (Literal[True], True, True),
    (Level, 0, Level.NONE),
    (Share, 1, Share.WHOLE),
    (Literal[1] | bool, True, True),
    (Literal[1] | bool, 1, 1),
    (
        Annotated[Choice | Other, Field(discriminator="kind")],
        {"kind": 2, "inner": [{"kind": 2, "inner": []}]},
        Other(kind=2, inner=[Other(kind=2)]),
    ),
    (date, "2026-11-30", date(2026, 11, 30)),
    (Point, {"x": 1.5, "y": 2}, Point(1.5, 2)),
    (list[Point], [{"x": 1.5, "y": 2}], [Point(1.5, 2)]),
    (Named, {"name": "a"}, {"name": "a"}),
    (Photo, {"content": "AAH_"}, Photo(b"\x00\x01\xff")),
    (list[Photo], [{"content": "AAH_"}], [Photo(b"\x00\x01\xff")]),
    (Encoded, {"content": "AAH/"}, Encoded(b"\x00\x01\xff")),
    (list[Encoded], [{"content": "AAH/"}], [Encoded(b"\x00\x01\xff")]),
    (
        Model,
        {"day": "2026-11-30", "image": "AAH/"},
        Model(day=date(2026, 11, 30), image=b"AAH/"),
    ),
]


@pytest.mark.parametrize(("annotation", "sent", "value"), ROUND_TRIPS)
def test_a_type_is_read_from_json_and_written_as_it(annotation: Any, sent: Any, value: Any) -> None:
    read = form(annotation).read(sent)
    assert read == value
    assert type(read) is type(value)
    written, _ = form(annotation).write(value)
    assert written == (sent if annotation is not Model else written)
    assert form(annotation).read(written) == value


@pytest.mark.parametrize(
    ("annotation", "sent"),
    [
        (int, "3"),
        (int, 1.5),
        (int, True),
        (Literal[1], True),
        (Literal[1], 2),
        (Literal[0, "x"], False),
        (Literal[True], 1),
        (Literal[Level.ONE], True),
        (Level, True),
        (Level, False),
        (Level, 2),
        (Share, True),
        (Annotated[Choice | Other, Field(discriminator="kind")], {"kind": True}),
        (list[Choice], [{"type": True}]),
        (Choice, {"numbers": [1, "a"]}),
        (Iterable[int], [1, "a"]),
        (float, "1"),
        (float, float("inf")),
        (str, 1),
        (bytes, "?"),
        (list[float], {"0": 1}),
        (Point, {}),
        (Annotated[int, Field(gt=3)], 3),
        (npt.NDArray[np.float32], ["1"]),
        (npt.NDArray[np.float32], [[1, 2], [3]]),
        (npt.NDArray[np.float32], [1e39]),
        (npt.NDArray[np.float32], 1.0),
        (npt.NDArray[np.int8], [300]),
        (npt.NDArray[np.int8], [1.5]),
        (npt.NDArray[np.uint8], [-1]),
        (npt.NDArray[np.bool_], [1]),
        (float, 10**400),
        (dict[str, list[float]], {"a": [1.0, -(10**400)]}),
    ],
)
def test_what_isnt_of_the_type_is_422_with_its_place(annotation: Any, sent: Any) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        form(annotation).read(sent)
    assert refused.value.extensions["errors"][0]["loc"][0] == "body"


@pytest.mark.parametrize("annotation", [Literal[1], Level])
def test_a_number_that_only_equals_a_choice_is_422(annotation: Any) -> None:
    assert form(annotation).read_json(b"1") == 1
    for sent in (b"true", b"1.0"):
        with pytest.raises(InvalidRequestError):
            form(annotation).read_json(sent)


def test_an_iterable_is_a_list_that_can_be_gone_through_twice() -> None:
    numbers = form(Iterable[int]).read([1, 2])
    assert [*numbers, *numbers] == [1, 2, 1, 2]
    assert form(Choice).read({"numbers": [3]}).numbers == [3]


def test_arrays_are_nested_lists_of_their_type() -> None:
    images = form(list[npt.NDArray[np.uint8]])
    (image,) = images.read([[[1, 2], [3, 255]]])
    assert (image.dtype, image.shape) == (np.uint8, (2, 2))
    assert images.write([image])[1] == b"[[[1,2],[3,255]]]"
    assert form(np.ndarray).read([1, 2]).dtype == np.float64
    assert form(np.ndarray | None).read(None) is None
    assert form(Sequence[np.ndarray] | None).read([[1]])[0].dtype == np.float64
    assert form(Annotated[np.ndarray, "documented"]).read([1]).dtype == np.float64
    schema = form(npt.NDArray[np.int64]).schema(of_answers=False)
    assert schema["items"]["anyOf"][0] == {"type": "integer"}


@pytest.mark.parametrize(
    ("annotation", "answer", "content"),
    [
        (float, np.float32(0.5), b"0.5"),
        (int, np.int64(3), b"3"),
        (str, np.str_("a"), b'"a"'),
        (list[float], np.array([0.5, 1.0]), b"[0.5,1.0]"),
        (list[list[int]], [np.array([1, 2])], b"[[1,2]]"),
        (Point, Point(np.float64(1.5)), b'{"x":1.5,"y":0}'),
        (Point, Point(np.float32(1.5), np.int64(2)), b'{"x":1.5,"y":2}'),  # type: ignore[arg-type]
        (list[Point], [Point(np.float32(1.5))], b'[{"x":1.5,"y":0}]'),  # type: ignore[arg-type]
        (set[int], {np.int64(3)}, b"[3]"),
        (Any, {"a": np.array([1])}, b'{"a":[1]}'),
        (dict[str, float], {"a": np.float32(0.5)}, b'{"a":0.5}'),
        (str, "é", '"é"'.encode()),
        (str, "NaN, Infinity", b'"NaN, Infinity"'),
    ],
)
def test_numpy_s_values_stand_for_python_s_in_answers(
    annotation: Any, answer: Any, content: bytes
) -> None:
    assert form(annotation).write(answer)[1] == content


@pytest.mark.parametrize(
    ("annotation", "answer", "line"),
    [
        (float, "1", "it is str, not float"),
        (float, True, "it is bool, not float"),
        (str, 3, "it is int, not str"),
        (Point, {"x": 1.0}, "it is dict, not Point"),
        (Point, Point("secret"), "it is Point that holds a value of another type"),  # type: ignore[arg-type]
        (list[float], [0.5, float("nan")], "it holds NaN or infinity"),
        (
            npt.NDArray[np.float32],
            np.array([np.inf]),
            "it is ndarray that holds a value of another type, NaN",
        ),
        (list[int], [0.5], "it is list[int] that holds a value of another type"),
        (int | None, "a", "it is str, not int | None"),
        (np.ndarray, np.array(3.0), "it is ndarray that holds a value of another type"),
        (Any, {"a": float("-inf")}, "it holds NaN or infinity"),
        (Any, object(), "it is object, not Any"),
        (str, "\ud800", "or text that is no valid Unicode"),
    ],
)
def test_an_answer_of_another_type_is_refused_without_its_content(
    annotation: Any, answer: Any, line: str
) -> None:
    with pytest.raises(UserCallError) as refused:
        form(annotation).write(answer)
    assert line in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "annotation", [object(), Callable[[], int], type("Other", (), {}), npt.NDArray[np.complex64]]
)
def test_a_type_without_a_form_in_json_is_refused(annotation: Any) -> None:
    with pytest.raises(UserCodeError, match="which has no form in JSON"):
        form(annotation)


def test_a_schema_is_json_whatever_its_defaults_and_bounds_are() -> None:
    class Odd(BaseModel):
        value: float = Field(float("nan"), le=float("inf"))
        values: list[float] = [float("inf")]

    schema = form(Odd).schema(of_answers=False)
    json.dumps(schema, allow_nan=False)
    assert schema["properties"]["value"]["type"] == "number"


def test_what_can_be_no_field_is_refused_with_what_to_write() -> None:
    with pytest.raises(UserCodeError, match=r"list\[Undecoded\], .* pydantic.Base64Bytes"):
        form(list[Undecoded])

    class Noted(BaseModel):
        value: int = Field(json_schema_extra={"note": object()})  # type: ignore[dict-item]

    with pytest.raises(UserCodeError, match="Noted, which has no form in JSON"):
        form(Noted)
    with pytest.raises(UserCodeError, match="a NumPy array can't be a field: write list"):
        form(dataclass(type("WithArray", (), {"__annotations__": {"values": np.ndarray}})))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Pydantic reads it there")
def test_a_typed_dict_of_an_older_python_is_refused_with_what_to_import() -> None:
    with pytest.raises(UserCodeError, match="import TypedDict from typing_extensions"):
        form(Old)
