"""Messages and calls between ours and LangChain's.

Imports LangChain, so it is imported when a chat model is loaded, and not before.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages import tool as lc_tool

from app.engines.chat_base import Message
from app.engines.tool_calls import ToolCall, ToolCallPiece, new_call_id

# LangChain's names of the roles, and OpenAI's.
ROLES = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool"}


def to_langchain(message: Message) -> BaseMessage:
    """Convert a message of ours to LangChain's."""
    if message.role == "assistant":
        return _assistant(message)
    if message.role == "tool":
        return ToolMessage(message.content, tool_call_id=message.tool_call_id or "")
    kind = SystemMessage if message.role == "system" else HumanMessage
    return kind(message.content)


def from_langchain(message: BaseMessage) -> Message:
    """Convert a message of LangChain's to ours."""
    return Message(
        role=ROLES[message.type],
        content=message.text,
        tool_calls=calls_of(message) if isinstance(message, AIMessage) else (),
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
    )


def calls_of(message: AIMessage) -> tuple[ToolCall, ...]:
    """Return the calls of a whole message; LangChain keeps only the meaning of arguments."""
    valid = ((c["id"], c["name"], json.dumps(c["args"])) for c in message.tool_calls)
    invalid = ((c["id"], c["name"], c["args"]) for c in message.invalid_tool_calls)
    return tuple(
        ToolCall(id=call_id or new_call_id(), name=name or "", arguments=arguments or "")
        for call_id, name, arguments in (*valid, *invalid)
    )


def pieces_of(chunk: Any, last: ToolCallPiece | None) -> Iterator[ToolCallPiece]:  # noqa: ANN401  # LangChain's
    """Yield the pieces of calls in a chunk that a chat model streams.

    Args:
        chunk: LangChain's, or None where the model gives none with a token.
        last: the piece before it; some providers number no calls.

    """
    message = getattr(chunk, "message", None)
    if not isinstance(message, AIMessageChunk):
        return
    for part in message.tool_call_chunks:
        last = _piece(part, last)
        yield last


def _piece(part: Mapping[str, Any], last: ToolCallPiece | None) -> ToolCallPiece:
    index = part.get("index")
    if not isinstance(index, int):  # a number is missing: an id begins the next call
        before = -1 if last is None else last.index
        index = before + 1 if part.get("id") or last is None else before
    is_first = last is None or index > last.index
    return ToolCallPiece(
        index=index,
        id=part.get("id") or (new_call_id() if is_first else None),
        name=part.get("name") or None,
        arguments=part.get("args") or "",
    )


def _assistant(message: Message) -> AIMessage:
    """Convert calls whose arguments aren't an object to LangChain's invalid ones."""
    valid, invalid = [], []
    for call in message.tool_calls:
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            valid.append(lc_tool.tool_call(name=call.name, args=arguments, id=call.id))
        else:
            invalid.append(
                lc_tool.invalid_tool_call(
                    name=call.name, args=call.arguments, id=call.id, error=None
                )
            )
    return AIMessage(message.content, tool_calls=valid, invalid_tool_calls=invalid)
