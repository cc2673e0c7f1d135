"""What questions are asked about: a text, messages and calls of tools, all made one text."""

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from app.errors import InvalidRequestError
from app.http.openai_schemas import Ignored, Only, OpenAiRequest

MAX_ITEMS = 1_000
MAX_PARTS = 100
NO_IMAGES = "this service decides about text and JSON"
CALLS = ("function_call", "custom_tool_call")
OUTPUTS = ("function_call_output", "custom_tool_call_output")


class InputPart(OpenAiRequest):
    """A part of a content: text, or JSON, which is read as text."""

    type: Annotated[str, Only("input_text", "input_json", "output_text", "refusal", hint=NO_IMAGES)]
    text: str | None = None
    data: dict[str, Any] | list[Any] | None = None
    refusal: str | None = None
    prompt_cache_breakpoint: Ignored = None

    @property
    def words(self) -> str | None:
        """What it says; None where its field is missing."""
        if self.type == "input_json":
            return None if self.data is None else as_text(self.data)
        return self.refusal if self.type == "refusal" else self.text

    @property
    def field(self) -> str:
        """The field that it must have."""
        return {"input_json": "data", "refusal": "refusal"}.get(self.type, "text")


def _to_parts(value: object) -> object:
    """Turn a text into a list of one part."""
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


PartList = Annotated[list[InputPart], Field(max_length=MAX_PARTS)]
Parts = Annotated[PartList, BeforeValidator(_to_parts, json_schema_input_type=str | PartList)]


class InputItem(OpenAiRequest):
    """A message, a call of a tool, or what the tool gave back."""

    type: Annotated[str | None, Only(None, "message", *CALLS, *OUTPUTS)] = None
    role: Annotated[str | None, Only(None, "user", "developer", "system", "assistant")] = None
    content: Parts | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: Parts | None = None
    id: Ignored = None
    status: Ignored = None
    namespace: Ignored = None
    phase: Ignored = None


def as_text(value: object) -> str:
    """Return a text as it is, and other JSON as compact as it can be written."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def missing(*place: str | int) -> InvalidRequestError:
    """Return the error of a field that isn't there."""
    return InvalidRequestError(
        [{"loc": ["body", *place], "msg": "Field required", "type": "missing"}]
    )


def words_of(parts: Iterable[InputPart], *place: str | int) -> str:
    """Return what parts say, one a line.

    Raises:
        InvalidRequestError: a part lacks what its type needs; it is named below `place`.

    """
    lines = []
    for number, part in enumerate(parts):
        if part.words is None:
            raise missing(*place, number, part.field)
        lines.append(part.words)
    return "\n".join(lines)


def state_of(items: Sequence[InputItem]) -> str:
    """Return what a model reads of an input.

    Of a single message the text alone; else each with who said it.

    Raises:
        InvalidRequestError: an item lacks a field, answers a call that isn't there, or there is
            no text at all.

    """
    state = _transcript(items)
    if not state.strip():
        empty = {"loc": ["body", "input"], "msg": "there is no text in it", "type": "empty"}
        raise InvalidRequestError([empty])
    return state


def _transcript(items: Sequence[InputItem]) -> str:
    called: dict[str, str] = {}  # names of tools, by their calls
    turns = [_turn(item, ("input", number), called) for number, item in enumerate(items)]
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{speaker}: {text}" for speaker, text in turns)


def _turn(item: InputItem, place: tuple[str, int], called: dict[str, str]) -> tuple[str, str]:
    """Return who says what in an item."""
    if item.type in {None, "message"}:
        if item.role is None or item.content is None:
            raise missing(*place, "role" if item.role is None else "content")
        return item.role, words_of(item.content, *place, "content")
    if item.call_id is None:
        raise missing(*place, "call_id")
    if item.type in OUTPUTS:
        if item.output is None:
            raise missing(*place, "output")
        if item.call_id not in called:
            unknown = "no earlier item is a call with this id"
            where = ["body", *place, "call_id"]
            raise InvalidRequestError([{"loc": where, "msg": unknown, "type": "no_call"}])
        return f"result of {called[item.call_id]}", words_of(item.output, *place, "output")
    field = "arguments" if item.type == "function_call" else "input"
    given = getattr(item, field)
    if item.name is None or given is None:
        raise missing(*place, "name" if item.name is None else field)
    called[item.call_id] = item.name
    return f"call of {item.name}", given
