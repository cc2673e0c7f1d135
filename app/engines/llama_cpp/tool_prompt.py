"""Tools in words, for models whose template knows none: definitions, calls and results as text.

A call is `{"name": …, "arguments": {…}}`, several are a list of them; see docs/decisions/0024.
"""

import json
from collections.abc import Sequence
from itertools import product
from typing import Literal

from app.engines.chat_base import Message
from app.engines.tool_calls import ToolCall, ToolUse

ONE = 'To call a tool, answer with this JSON and nothing else: {"name": "…", "arguments": {…}}'
MANY = 'To call tools, answer with this JSON and nothing else: [{"name": "…", "arguments": {…}}, …]'
MUST = "Answer with a call."
MAY = "If no tool is needed, answer in words."
# What models write around a call that they have seen elsewhere.
OPENINGS = ("", "<tool_call>", "```json", "```")
SHOWN = ("name", "description", "parameters")
Verdict = Literal["call", "text", "open"]


def in_words(messages: Sequence[Message], use: ToolUse | None) -> list[Message]:
    """Return a conversation without roles and fields of tools, and with what may be called."""
    spoken: list[Message] = []
    for message in messages:
        role, content = _spoken(message, messages)
        # Many templates want users and assistants in turns.
        if spoken and role == "user" == spoken[-1].role and _is_result(message, spoken[-1]):
            content = f"{spoken.pop().content}\n\n{content}"
        spoken.append(Message(role=role, content=content))
    if use is not None:
        has_system = bool(spoken) and spoken[0].role == "system"
        told = [spoken.pop(0).content] if has_system else []
        content = "\n\n".join((*told, _told(use)))
        spoken.insert(0, Message(role="system", content=content))
    return spoken


def verdict(text: str, names: Sequence[str], ending: str = "") -> tuple[Verdict, str | None]:
    """Say whether a text that goes on is the beginning of a call, and of which tool.

    Args:
        text: the answer so far.
        names: of the tools.
        ending: what has to stand behind the name for a call.

    """
    compact = "".join(text.split())
    is_open = False
    for name, opening, bracket in product(names, OPENINGS, ("", "[")):
        start = f'{opening}{bracket}{{"name":{json.dumps(name)}{ending}'
        if compact.startswith(start):
            return "call", name
        is_open = is_open or start.startswith(compact)
    return ("open" if is_open else "text"), None


def _told(use: ToolUse) -> str:
    """Return what the model is told of its tools."""
    tools = [
        json.dumps({key: tool[key] for key in SHOWN if tool.get(key)}, ensure_ascii=False)
        for tool in use.tools
    ]
    end = MUST if use.is_required else MAY
    return "\n".join(("You have these tools:", *tools, MANY if use.has_many else ONE, end))


def _spoken(message: Message, messages: Sequence[Message]) -> tuple[str, str]:
    """Return a message's role and content in words."""
    if message.role == "tool":
        calls = (call for other in messages for call in other.tool_calls)
        name = next((call.name for call in calls if call.id == message.tool_call_id), "the tool")
        return "user", f"Result of {name}: {message.content}"
    if not message.tool_calls:
        return message.role, message.content
    calls_as_json = [_as_json(call) for call in message.tool_calls]
    many = len(calls_as_json) > 1
    written = f"[{', '.join(calls_as_json)}]" if many else calls_as_json[0]
    return message.role, "\n".join(filter(None, (message.content, written)))


def _as_json(call: ToolCall) -> str:
    """Return a call as the model would have written it; arguments stay as they are."""
    return f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}'


def _is_result(message: Message, before: Message) -> bool:
    return message.role == "tool" or before.content.startswith("Result of ")
