"""The items of a response's input: messages, calls, their results, and references to items."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter

from app.engines.chat_base import Message
from app.engines.tool_calls import ToolCall
from app.errors import UnsupportedFieldError
from app.models.schemas import Request

MAX_ITEMS = 1_024
ONLY_TEXT = "models of this service read text: there are no images, audio and files."
ONLY_THESE = (
    "an input has messages, function calls and their outputs, reasoning and item references."
)


class Echoed(Request):
    """A part of the input; what newer clients add to it is ignored."""

    model_config = ConfigDict(extra="ignore")


class TextPart(Echoed):
    """A text of a client's, or of an answer that it sends back."""

    type: Literal["input_text", "output_text"]
    text: str


class RefusalPart(Echoed):
    """A refusal in an answer that a client sends back."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """What the model reads of it."""
        return self.refusal


def _part_tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return "<refusal>" if kind == "refusal" else "<text>" if kind in TEXTS else f"<{kind}>"


TEXTS = ("input_text", "output_text")
# A tag becomes a part of an error's place; the brackets tell it from a field.
Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")],
    Discriminator(
        _part_tag,
        custom_error_type=UnsupportedFieldError.code,
        custom_error_message="This part is not supported",
        custom_error_context={"hint": ONLY_TEXT},
    ),
]


def _to_parts(value: object) -> object:
    """Turn a text into a list of one part."""
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[Part], BeforeValidator(_to_parts, json_schema_input_type=str | list[Part])]


def _joined(parts: Sequence[TextPart | RefusalPart]) -> str:
    return "\n".join(part.text for part in parts)


class MessageItem(Echoed):
    """One turn of a conversation; the developer's is the system's."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Parts


class FunctionCallItem(Echoed):
    """A call that the assistant made, as a client sends it back."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(min_length=1)]
    name: str
    arguments: str

    def call(self) -> ToolCall:
        """Return it as engines know it."""
        return ToolCall(id=self.call_id, name=self.name, arguments=self.arguments)


class FunctionOutputItem(Echoed):
    """What a function returned."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(min_length=1)]
    output: Parts


class ReasoningItem(Echoed):
    """Thoughts of another model, which aren't read."""

    type: Literal["reasoning"]


class ItemReference(Echoed):
    """An item of a kept response's output, in place of the item itself."""

    type: Literal["item_reference"] = "item_reference"
    id: str


def _item_tag(value: object) -> str | None:
    """Return the kind of an item; clients leave that of messages and references out."""
    if not isinstance(value, dict):
        return None
    kind = value.get("type") or ("message" if "role" in value else "item_reference")
    return f"<{kind}>"


def _typed(value: object) -> object:
    """Leave out a type that is null, as if it weren't there."""
    if isinstance(value, dict) and value.get("type", "") is None:
        return {name: each for name, each in value.items() if name != "type"}
    return value


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCallItem, Tag("<function_call>")]
    | Annotated[FunctionOutputItem, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")],
    Discriminator(
        _item_tag,
        custom_error_type=UnsupportedFieldError.code,
        custom_error_message="This item is not supported",
        custom_error_context={"hint": ONLY_THESE},
    ),
    BeforeValidator(_typed),
]
ITEMS = TypeAdapter(list[Item])


def read_items(items: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Return items as they were kept."""
    return ITEMS.validate_python(items, strict=True)


def messages_of(items: Sequence[Item], *, instructions: str | None) -> list[Message]:
    """Return what a chat model reads of items; calls that follow each other are one turn.

    Args:
        items: with all references replaced by what they refer to.
        instructions: go before all of them.

    """
    messages = [] if instructions is None else [_message("system", instructions)]
    for item in items:
        if isinstance(item, MessageItem):
            role = "system" if item.role == "developer" else item.role
            messages.append(_message(role, _joined(item.content)))
        elif isinstance(item, FunctionOutputItem):
            messages.append(_message("tool", _joined(item.output), call_id=item.call_id))
        elif isinstance(item, FunctionCallItem):
            is_same_turn = bool(messages) and messages[-1].role == "assistant"
            last = messages.pop() if is_same_turn else _message("assistant", "")
            messages.append(_message("assistant", last.content, (*last.tool_calls, item.call())))
    return messages


def _message(
    role: str, text: str, calls: tuple[ToolCall, ...] = (), call_id: str | None = None
) -> Message:
    """Return a message, with what a remote server of chat completions gets."""
    sent: dict[str, Any] = {"role": role, "content": None if calls and not text else text}
    if calls:
        sent["tool_calls"] = [call.as_openai() for call in calls]
    if call_id is not None:
        sent["tool_call_id"] = call_id
    return Message(role=role, content=text, tool_calls=calls, tool_call_id=call_id, sent=sent)
