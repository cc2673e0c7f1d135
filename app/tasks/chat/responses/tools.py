"""Functions that a response may call, and the choice among them, as `/v1/responses` writes them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo
from pydantic_core import PydanticCustomError

from app.engines.tool_calls import REQUIRED
from app.errors import UnsupportedFieldError
from app.tasks.chat.openai_tools import MAX_TOOLS, ToolName
from app.tasks.chat.responses.parts import SentPart

ONLY_FUNCTIONS = (
    "the client runs functions; this service has no tools of its own, such as web or file search,"
    " code interpreters, image generation and MCP servers."
)


class FunctionTool(SentPart):
    """A function that the model may call; `strict` changes nothing, see docs/chat.md."""

    type: Literal["function"]
    name: ToolName
    description: str | None = None
    parameters: Annotated[
        dict[str, Any] | None, Field(description="A JSON Schema; without one there are none.")
    ] = None
    strict: bool | None = None

    def as_chat(self) -> dict[str, Any]:
        """Return it as chat completions have it."""
        return {"type": "function", "function": {n: v for n, v in self.sent.items() if n != "type"}}


def _tag(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return "<none>" if value is None else "<mode>"
    return f"<{value['type']}>" if isinstance(value, dict) and "type" in value else None


def _only_functions(value: object) -> object:
    """Refuse tools that a server would run."""
    if isinstance(value, dict) and value.get("type", "function") != "function":
        raise PydanticCustomError(
            UnsupportedFieldError.code, "This tool is not supported", {"hint": ONLY_FUNCTIONS}
        )
    return value


def _have_own_names(tools: Sequence[FunctionTool]) -> Sequence[FunctionTool]:
    names = [tool.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise PydanticCustomError(
                "duplicate_tool",
                "Tool names must be unique: '{name}' is there twice",
                {"name": name},
            )
    return tools


Tools = Annotated[
    list[Annotated[FunctionTool, BeforeValidator(_only_functions)]],
    Field(max_length=MAX_TOOLS),
    AfterValidator(_have_own_names),
]


class NamedFunction(SentPart):
    """The one function to call."""

    type: Literal["function"]
    name: ToolName


class AllowedFunctions(SentPart):
    """Some of the functions, and whether one of them has to be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedFunction], Field(min_length=1, max_length=MAX_TOOLS)]


Choice = str | NamedFunction | AllowedFunctions | None


def _is_possible(choice: Choice, info: ValidationInfo) -> Choice:
    """Refuse a choice that `tools` don't have."""
    if choice is None or (isinstance(choice, str) and choice != REQUIRED):
        return choice
    tools: Sequence[FunctionTool] = info.data.get("tools") or ()
    if not tools:
        raise PydanticCustomError(
            "no_tools", "'tool_choice' is only allowed when 'tools' are specified"
        )
    known = [tool.name for tool in tools]
    for name in _names(choice):
        if name not in known:
            raise PydanticCustomError(
                "unknown_tool",
                "Tool choice '{name}' not found in 'tools' parameter",
                {"name": name},
            )
    return choice


def _names(choice: Choice) -> Sequence[str]:
    if isinstance(choice, AllowedFunctions):
        return [tool.name for tool in choice.tools]
    return [choice.name] if isinstance(choice, NamedFunction) else []


def choice_as_chat(choice: Choice) -> str | dict[str, Any] | None:
    """Return a choice as chat completions have it."""
    if isinstance(choice, NamedFunction):
        return _named(choice)
    if isinstance(choice, AllowedFunctions):
        tools = [_named(tool) for tool in choice.tools]
        allowed = {"mode": choice.mode, "tools": tools}
        return {"type": "allowed_tools", "allowed_tools": allowed}
    return choice


def _named(tool: NamedFunction) -> dict[str, Any]:
    return {"type": "function", "function": {"name": tool.name}}


# A tag becomes a part of an error's place; the brackets tell it from a field.
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedFunction, Tag("<function>")]
    | Annotated[AllowedFunctions, Tag("<allowed_tools>")]
    | Annotated[None, Tag("<none>")],
    Discriminator(
        _tag,
        custom_error_type=UnsupportedFieldError.code,
        custom_error_message="This choice is not supported",
        custom_error_context={"hint": ONLY_FUNCTIONS},
    ),
    AfterValidator(_is_possible),
]
