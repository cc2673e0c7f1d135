"""Tools in OpenAI's dialect: their definitions, the choice among them, calls and their results."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from app.engines.tool_calls import REQUIRED, ToolCall, chosen_names
from app.errors import UnsupportedFieldError
from app.http.openai_schemas import Only, OpenAsSent, OpenPart
from app.models.schemas import Response

MAX_TOOLS = 128  # as OpenAI has it
MAX_NAME_CHARS = 64
CHOICES = ("none", "auto", "required")

ToolName = Annotated[
    str, Field(max_length=MAX_NAME_CHARS, pattern=rf"^[a-zA-Z0-9_-]{{1,{MAX_NAME_CHARS}}}$")
]
FunctionType = Annotated[str, Only("function")]


class FunctionDefinition(OpenPart):
    """A function that the model may call; `strict` changes nothing, see docs/chat.md."""

    name: ToolName
    description: str | None = None
    parameters: Annotated[
        dict[str, Any] | None, Field(description="A JSON Schema; without one there are none.")
    ] = None
    strict: bool | None = None


class ToolDefinition(OpenAsSent):
    """A tool; there are only functions."""

    type: FunctionType
    function: FunctionDefinition


def _have_own_names(tools: Sequence[ToolDefinition]) -> Sequence[ToolDefinition]:
    names = [tool.function.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise PydanticCustomError(
                "duplicate_tool",
                "Tool names must be unique: '{name}' is there twice",
                {"name": name},
            )
    return tools


Tools = Annotated[
    list[ToolDefinition], Field(max_length=MAX_TOOLS), AfterValidator(_have_own_names)
]


class FunctionName(OpenPart):
    """The name of a function in `tools`."""

    name: ToolName


class NamedTool(OpenAsSent):
    """The one tool to call."""

    type: FunctionType
    function: FunctionName


class AllowedTools(OpenPart):
    """Some of the tools, and whether one of them has to be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolsChoice(OpenAsSent):
    """A choice of some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_tag(value: object) -> str | None:
    if isinstance(value, str):
        return "<mode>"
    return f"<{value['type']}>" if isinstance(value, dict) and "type" in value else None


def _is_possible(
    choice: str | NamedTool | AllowedToolsChoice | None, info: ValidationInfo
) -> str | NamedTool | AllowedToolsChoice | None:
    """Refuse a choice that `tools` don't have."""
    tools: Sequence[ToolDefinition] | None = info.data.get("tools", ())
    if choice is None or (isinstance(choice, str) and choice != REQUIRED):
        return choice
    if not tools:
        raise PydanticCustomError(
            "no_tools", "'tool_choice' is only allowed when 'tools' are specified"
        )
    known = [tool.function.name for tool in tools]
    for name in chosen_names(choice if isinstance(choice, str) else choice.sent) or ():
        if name not in known:
            raise PydanticCustomError(
                "unknown_tool",
                "Tool choice '{name}' not found in 'tools' parameter",
                {"name": name},
            )
    return choice


# A tag becomes a part of an error's place; the brackets tell it from a field.
ToolChoice = Annotated[
    Annotated[
        Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
        | Annotated[NamedTool, Tag("<function>")]
        | Annotated[AllowedToolsChoice, Tag("<allowed_tools>")],
        Discriminator(
            _choice_tag,
            custom_error_type=UnsupportedFieldError.code,
            custom_error_message="This choice is not supported",
        ),
    ]
    | None,
    AfterValidator(_is_possible),
]


class SentFunction(OpenPart):
    """What a call of the assistant's calls; what clients add to it is ignored."""

    model_config = ConfigDict(extra="ignore")

    name: str
    arguments: Annotated[str, Field(description="JSON, as the model wrote it.")]


class SentToolCall(OpenPart):
    """A call of the assistant's, as a client sends it back; what clients add is ignored."""

    model_config = ConfigDict(extra="ignore")

    id: Annotated[str, Field(min_length=1)]
    type: FunctionType = "function"
    function: SentFunction

    def call(self) -> ToolCall:
        """Return it as engines know it."""
        return ToolCall(id=self.id, name=self.function.name, arguments=self.function.arguments)


class CalledFunction(Response):
    """What a call calls."""

    name: str
    arguments: Annotated[
        str, Field(description="JSON, as the model wrote it; whole unless it was cut.")
    ]


class AnsweredToolCall(Response):
    """A call of one of the tools."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction

    @classmethod
    def of(cls, call: ToolCall) -> Self:
        """Return a call as OpenAI's clients expect it."""
        return cls(id=call.id, function=CalledFunction(name=call.name, arguments=call.arguments))
