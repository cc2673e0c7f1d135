"""Tools: what a model may call, its calls, and how these come in pieces."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.engines.thoughts import Thought

if TYPE_CHECKING:
    from app.engines.chat_base import GenerationOptions

# OpenAI's `tool_choice`.
AUTO, NONE, REQUIRED = "auto", "none", "required"
# What `GenerationOptions` has of tools.
TOOL_OPTIONS = ("tools", "tool_choice", "parallel_tool_calls")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a tool; `arguments` is JSON as the model wrote it, not checked."""

    id: str
    name: str
    arguments: str

    def as_openai(self) -> dict[str, Any]:
        """Return it as OpenAI's messages have it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallPiece:
    """A piece of a call; the first of each has its id and name, all add to its arguments."""

    index: int  # of the call in the answer
    id: str | None = None
    name: str | None = None
    arguments: str = ""

    def as_openai(self) -> dict[str, Any]:
        """Return it as OpenAI's chunks have it."""
        function: dict[str, Any] = {} if self.name is None else {"name": self.name}
        function["arguments"] = self.arguments
        start = {} if self.id is None else {"id": self.id, "type": "function"}
        return {"index": self.index, **start, "function": function}


# What an answer comes in: text, a piece of a call, or of what the model thinks before.
Piece = str | ToolCallPiece | Thought


class ToolCallJoiner:
    """Joins the pieces of calls."""

    def __init__(self) -> None:
        self._starts: dict[int, ToolCallPiece] = {}
        self._arguments: dict[int, list[str]] = {}

    def add(self, piece: ToolCallPiece) -> None:
        """Take the next piece."""
        self._starts.setdefault(piece.index, piece)
        self._arguments.setdefault(piece.index, []).append(piece.arguments)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far, in order."""
        return tuple(
            ToolCall(
                id=start.id or new_call_id(),
                name=start.name or "",
                arguments="".join(self._arguments[index]),
            )
            for index, start in sorted(self._starts.items())
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """Which tools an answer may call, and whether it has to."""

    tools: tuple[Mapping[str, Any], ...]  # OpenAI's `function` objects, by the order of `tools`
    is_required: bool
    has_many: bool  # calls in one answer, where the request says that there may be

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names."""
        return tuple(tool["name"] for tool in self.tools)

    def only(self, name: str) -> "ToolUse":
        """Return that this one has to be called."""
        tools = tuple(tool for tool in self.tools if tool["name"] == name)
        return ToolUse(tools=tools, is_required=True, has_many=False)


def tool_use(options: "GenerationOptions") -> ToolUse | None:
    """Return what `tools` and `tool_choice` ask for; None: no tool is to be called."""
    choice = options.tool_choice or AUTO
    if not options.tools or choice == NONE:
        return None
    names = chosen_names(choice)
    functions = [tool["function"] for tool in options.tools]
    return ToolUse(
        tools=tuple(each for each in functions if names is None or each["name"] in names),
        is_required=_mode(choice) == REQUIRED,
        has_many=options.parallel_tool_calls is True and not _is_named(choice),
    )


def chosen_names(choice: str | Mapping[str, Any]) -> Sequence[str] | None:
    """Return the tools that a `tool_choice` names; None: all."""
    if isinstance(choice, str):
        return None
    if _is_named(choice):
        return [choice["function"]["name"]]
    return [tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]]


def new_call_id() -> str:
    """Return an id for a call."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _is_named(choice: str | Mapping[str, Any]) -> bool:
    return not isinstance(choice, str) and "function" in choice


def _mode(choice: str | Mapping[str, Any]) -> str:
    if isinstance(choice, str):
        return choice
    return REQUIRED if _is_named(choice) else str(choice["allowed_tools"]["mode"])
