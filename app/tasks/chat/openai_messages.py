"""The messages of OpenAI's dialect: roles, texts, calls of tools and their results."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.engines.chat_base import Message
from app.http.openai_fields import Refused, WithoutEffect
from app.http.openai_schemas import Only, OpenAsSent, OpenPart
from app.tasks.chat.openai_tools import MAX_TOOLS, SentToolCall

SENT_BACK = "clients send it back with an answer of the assistant's"
THOUGHTS = "a model reads its answers, not how it came to them"
# OpenAI's words, with its spelling mended.
NO_CALL = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'"


TEXTS_ONLY = "this model reads texts only"
NO_IMAGES = f"{TEXTS_ONLY}, and sees no images"
OTHER_PARTS = {
    "image_url": NO_IMAGES,
    "input_image": NO_IMAGES,
    "input_audio": f"{TEXTS_ONLY}, and hears nothing",
    "file": f"{TEXTS_ONLY}, and opens no files; put their text into the message",
}


class ContentPart(OpenPart):
    """A part of a message's content: a text; images and others are for remote models."""

    type: Annotated[str, Refused(TEXTS_ONLY, allowed=["text"], reasons=OTHER_PARTS)]
    text: str | None = None
    cache_control: Annotated[Any, WithoutEffect("prompts are always cached")] = None

    @model_validator(mode="after")
    def has_its_text(self) -> Self:
        """Check that a text is there."""
        if self.type == "text" and self.text is None:
            raise fault(("text",), "missing", "Field required")
        return self


def _to_parts(value: object) -> object:
    """Turn a text into a list of one part."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[list[ContentPart], Field(min_length=1)]


class ChatCompletionMessage(OpenAsSent):
    """One turn of a conversation; the developer's is the system's."""

    role: Annotated[str, Only("system", "developer", "user", "assistant", "tool")]
    content: Annotated[
        Parts | None,
        BeforeValidator(_to_parts, json_schema_input_type=str | Parts | None),
        Field(description="Null only for an assistant that called tools."),
    ] = None
    name: Annotated[str | None, WithoutEffect("templates of models have roles only")] = None
    tool_calls: Annotated[
        list[SentToolCall] | None,
        Field(max_length=MAX_TOOLS, description="What the assistant called."),
    ] = None
    tool_call_id: Annotated[
        str | None, Field(description="Of a tool's message: the call whose result it is.")
    ] = None
    # As clients send them back with an answer of the assistant's.
    annotations: Annotated[Any, WithoutEffect(SENT_BACK)] = None
    parsed: Annotated[Any, WithoutEffect(SENT_BACK)] = None
    refusal: Annotated[Any, WithoutEffect(SENT_BACK)] = None
    reasoning: Annotated[Any, WithoutEffect(THOUGHTS)] = None
    reasoning_content: Annotated[Any, WithoutEffect(THOUGHTS)] = None

    @model_validator(mode="after")
    def has_what_its_role_needs(self) -> Self:
        """Check what no field alone can."""
        for field, kind, text in self._faults():
            raise fault((field,), kind, text)
        return self

    def _faults(self) -> Sequence[tuple[str, str, str]]:
        """Return what is wrong for the message's role: field, kind of error, message."""
        has_calls = self.role == "assistant" and bool(self.tool_calls)
        faults = []
        if self.content is None and not has_calls:
            faults.append(("content", "missing", "Field required"))
        if self.role == "tool" and self.tool_call_id is None:
            faults.append(("tool_call_id", "missing", "Field required"))
        if self.role != "assistant" and self.tool_calls:
            faults.append(("tool_calls", "misplaced", "only an assistant calls tools"))
        return faults

    @property
    def text(self) -> str:
        """All of the content, one part a line."""
        return "\n".join(part.text or "" for part in self.content or () if part.type == "text")

    def message(self) -> Message:
        """Return it as engines know it."""
        role = "system" if self.role == "developer" else self.role
        return Message(
            role=role,
            content=self.text,
            tool_calls=tuple(call.call() for call in self.tool_calls or ()),
            tool_call_id=self.tool_call_id,
            sent={**self.sent, "role": role},
        )


def fault(place: tuple[str | int, ...], kind: str, text: str) -> ValidationError:
    """Return the error of one field, for validators of what the field is in."""
    error = PydanticCustomError(kind, "{text}", {"text": text})
    return ValidationError.from_exception_data(
        "request", [InitErrorDetails(type=error, loc=place, input=None)]
    )


def answer_calls(messages: Sequence[ChatCompletionMessage]) -> Sequence[ChatCompletionMessage]:
    """Refuse results of calls that no earlier message made."""
    called: set[str] = set()
    for number, message in enumerate(messages):
        called.update(call.id for call in message.tool_calls or ())
        if message.role == "tool" and message.tool_call_id not in called:
            raise fault((number, "role"), "no_call", NO_CALL)
    return messages
