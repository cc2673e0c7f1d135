"""Tools in words, for models whose template knows none: definitions, calls and results as text.

A call is `{"name": …, "arguments": {…}}`, several are a list of them; see docs/decisions/0024.
"""

import json
from collections.abc import Mapping, Sequence
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
    turns: list[tuple[str, list[str]]] = []
    calls = [call for message in messages for call in message.tool_calls]
    names = {call.id: call.name for call in reversed(calls)}  # the first of equal ids counts
    for message in messages:
        role, content = _spoken(message, names)
        # Many templates want users and assistants in turns.
        if turns and role == "user" == turns[-1][0] and _is_result(message, turns[-1][1][0]):
            turns[-1][1].append(content)
        else:
            turns.append((role, [content]))
    spoken = [Message(role=role, content="\n\n".join(parts)) for role, parts in turns]
    if use is not None:
        has_system = bool(spoken) and spoken[0].role == "system"
        told = [spoken.pop(0).content] if has_system else []
        content = "\n\n".join((*told, _told(use)))
        spoken.insert(0, Message(role="system", content=content))
    return spoken


class CallStart:
    """Says whether a text that comes in pieces is the beginning of a call, and of which tool.

    What a call may begin with is written once, and each piece leaves fewer of these: a model may
    have 128 tools, and its pieces are tokens.

    Args:
        names: of the tools.
        ending: what has to stand behind the name for a call.

    """

    def __init__(self, names: Sequence[str], ending: str = "") -> None:
        self._text = ""  # so far, without space
        self._starts = [
            (f'{opening}{bracket}{{"name":{json.dumps(name)}{ending}', name)
            for name, opening, bracket in product(names, OPENINGS, ("", "["))
        ]
        self.verdict: Verdict = "open"
        self.name: str | None = None  # of the tool, once it is a call

    def take(self, piece: str) -> Verdict:
        """Take the next piece; return what the text is by now."""
        compact = "".join(piece.split())
        if self.verdict != "open" or not compact:
            return self.verdict
        self._text += compact
        text = self._text
        self.name = next((name for start, name in self._starts if text.startswith(start)), None)
        self._starts = [(start, name) for start, name in self._starts if start.startswith(text)]
        self.verdict = "call" if self.name is not None else "open" if self._starts else "text"
        return self.verdict


def _told(use: ToolUse) -> str:
    """Return what the model is told of its tools."""
    tools = [
        json.dumps({key: tool[key] for key in SHOWN if tool.get(key)}, ensure_ascii=False)
        for tool in use.tools
    ]
    end = MUST if use.is_required else MAY
    return "\n".join(("You have these tools:", *tools, MANY if use.has_many else ONE, end))


def _spoken(message: Message, names: Mapping[str, str]) -> tuple[str, str]:
    """Return a message's role and content in words."""
    if message.role == "tool":
        name = names.get(message.tool_call_id or "", "the tool")
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


def _is_result(message: Message, before: str) -> bool:
    return message.role == "tool" or before.startswith("Result of ")
