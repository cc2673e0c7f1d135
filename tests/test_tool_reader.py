"""Calls are read out of text as it comes, however it is cut into pieces."""

import json
import time
from collections.abc import Sequence

import pytest

from app.engines.chat_base import Message
from app.engines.llama_cpp.tool_prompt import in_words
from app.engines.llama_cpp.tool_reader import CallReader, CallWatch
from app.engines.tool_calls import Piece, ToolCall, ToolCallPiece

NAMES = ("get", "get_time")
TRICKY = '{"a": "}{\\"]\\\\", "b": [{"c": {}}, 1.5, null], "d": "{\\u00e9"}'


class Heard:
    """Notes what comes, and says stop after so many pieces."""

    def __init__(self, most: int = 1_000_000) -> None:
        self.pieces: list[Piece] = []
        self._most = most

    def __call__(self, piece: Piece) -> bool:
        if piece:
            self.pieces.append(piece)
        return len(self.pieces) >= self._most

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    def calls(self) -> list[tuple[str | None, str]]:
        calls: list[tuple[str | None, str]] = []
        for piece in self.pieces:
            if isinstance(piece, ToolCallPiece) and piece.id:
                calls.append((piece.name, piece.arguments))
            elif isinstance(piece, ToolCallPiece):
                name, arguments = calls[piece.index]
                calls[piece.index] = (name, arguments + piece.arguments)
        return calls


def cut(text: str, size: int) -> Sequence[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def read(text: str, size: int, *, may_be_text: bool = False) -> Heard:
    heard = Heard()
    reader = CallReader(NAMES, heard, may_be_text=may_be_text)
    stops = [reader.take(piece) for piece in cut(text, size)]
    assert not any(stops)
    assert [(call.name, call.arguments) for call in reader.calls] == heard.calls()
    return heard


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_one_call_and_several_are_read_whatever_the_pieces(size: int) -> None:
    one = f'{{"name": "get", "arguments": {TRICKY}}}'
    assert read(one, size).calls() == [("get", TRICKY)]
    several = f'[\n {{"name":"get_time" ,"arguments":{{}} \n }},{one} , {one}]'
    for may_be_text in (False, True):
        heard = read(several, size, may_be_text=may_be_text)
        assert heard.calls() == [("get_time", "{}"), ("get", TRICKY), ("get", TRICKY)]
        assert heard.text == ""


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    "text", ['{"name": "get", "age": 3}', '{"name": "gets", "arguments": {}}', '{"a": 1}', "[1]"]
)
def test_an_answer_that_is_no_call_comes_whole(text: str, size: int) -> None:
    heard = read(text, size, may_be_text=True)
    assert (heard.text, heard.calls()) == (text, [])


def test_arguments_come_as_they_are_written() -> None:
    heard = read('{"name": "get", "arguments": {"a": "long"}}', 1)
    first, *rest = heard.pieces
    assert isinstance(first, ToolCallPiece)
    assert (first.index, first.name, first.arguments) == (0, "get", "")
    written = [piece.arguments for piece in rest if isinstance(piece, ToolCallPiece)]
    assert "".join(written) == '{"a": "long"}'
    assert len(written) == len(rest) > 5


def test_a_call_that_is_cut_off_keeps_what_came() -> None:
    assert read('{"name": "get", "arguments": {"a": "lo', 4).calls() == [("get", '{"a": "lo')]
    assert read('{"name": "ge', 4).calls() == []


def watch(text: str, size: int) -> tuple[Heard, CallWatch, int]:
    heard = Heard()
    watching = CallWatch(NAMES, heard)
    for count, piece in enumerate(cut(text, size), 1):
        if watching.take(piece):
            return heard, watching, count
    watching.flush()
    return heard, watching, -1


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('{"name": "get", "arguments": {"a"', "get"),
        ('\n[ {\n"name" : "get_time"', "get_time"),
        ('<tool_call>\n{"name": "get"', "get"),
        ('```json\n{"name": "get"', "get"),
    ],
)
def test_the_beginning_of_a_call_stops_the_text_before_any_of_it(
    text: str, name: str, size: int
) -> None:
    heard, watching, stopped = watch(text, size)
    assert (watching.called, heard.pieces) == (name, [])
    assert stopped > 0


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize(
    "text", ["Hello", '{"name": "gets"}', '{"nam', "", "``` code", '{"name": "Ann"}', "<b>x</b>"]
)
def test_text_passes_even_if_it_looks_like_a_call_at_first(text: str, size: int) -> None:
    heard, watching, stopped = watch(text, size)
    assert (heard.text, watching.called, stopped) == (text, None, -1)


def test_who_leaves_stops_either() -> None:
    reader = CallReader(NAMES, Heard(1), may_be_text=False)
    assert reader.take(json.dumps({"name": "get", "arguments": {}}))
    assert CallWatch(NAMES, Heard(0)).take("{")


def test_many_tools_and_results_cost_as_much_as_their_number() -> None:
    """A hundred tools are no work for each token, and each result finds its call at once."""
    many = tuple(f"tool_{number}" for number in range(128))
    heard = Heard()
    watching = CallWatch(many, heard)
    started = time.perf_counter()
    for piece in ['{"name": ', *cut(" " * 20_000, 1)]:
        assert not watching.take(piece)
    watching.take('"tool_7"')
    assert watching.called == "tool_7"
    calls = tuple(ToolCall(id=f"c{n}", name=f"tool_{n}", arguments="{}") for n in range(128))
    turns = [Message(role="assistant", content="", tool_calls=calls)] * 40
    results = [
        Message(role="tool", content="x", tool_call_id=f"c{n % 128}") for n in range(128 * 40)
    ]
    told = in_words([*turns, *results], None)
    assert told[-1].content.endswith("Result of tool_127: x")
    assert "the tool" not in told[-1].content
    assert time.perf_counter() - started < 1.0  # some tens of milliseconds; it took minutes
