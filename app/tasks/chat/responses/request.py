"""The body of `/v1/responses`: OpenAI's, as far as this service can keep it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, Tag
from pydantic_core import PydanticCustomError

from app.engines.chat_base import GenerationOptions
from app.errors import UnsupportedFieldError
from app.http.openai_schemas import Ignored, Only, OpenAiRequest
from app.models.schemas import example
from app.tasks.chat.openai_schemas import BY_TYPE, ReasoningEffort
from app.tasks.chat.responses.items import MAX_ITEMS, Item
from app.tasks.chat.responses.parts import SentPart
from app.tasks.chat.responses.tools import ToolChoice, Tools, choice_as_chat
from app.tasks.chat.schemas import MaxTokens, Temperature

# What `include` may ask for: parts of items that no response of this service has.
WITHOUT_EFFECT = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
)
IN_WORDS = "a response is answered at once, or streamed."
BY_RESPONSE = "go on from a response by `previous_response_id`."
NO_PROMPTS = "prompts aren't kept here: send `instructions` and `input`."
NOT_CUT = "nothing is left out of an input: send what fits the model's context."


class PlainText(SentPart):
    """Text, as without a format."""

    type: Literal["text"]

    def as_chat(self) -> dict[str, Any] | None:
        """Return it as chat completions have it."""
        return None


class JsonObject(SentPart):
    """Any JSON."""

    type: Literal["json_object"]

    def as_chat(self) -> dict[str, Any] | None:
        """Return it as chat completions have it."""
        return {"type": "json_object"}


class JsonSchema(SentPart):
    """JSON that a schema describes, which the answer always follows, `strict` or not."""

    type: Literal["json_schema"]
    name: Annotated[str, Field(min_length=1)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None

    def as_chat(self) -> dict[str, Any] | None:
        """Return it as chat completions have it."""
        named = {name: value for name, value in self.sent.items() if name != "type"}
        return {"type": "json_schema", "json_schema": named}


TextFormat = Annotated[
    Annotated[PlainText, Tag("<text>")]
    | Annotated[JsonObject, Tag("<json_object>")]
    | Annotated[JsonSchema, Tag("<json_schema>")],
    BY_TYPE,
]


class TextOptions(OpenAiRequest):
    """How the text of the answer is written."""

    format: TextFormat | None = None
    verbosity: Annotated[Any, Only(None, "medium")] = None


class ReasoningOptions(OpenAiRequest):
    """How long a model thinks: for templates that know it, and for remote models."""

    effort: ReasoningEffort | None = None
    summary: Ignored = None
    generate_summary: Ignored = None


class ResponseStreamOptions(OpenAiRequest):
    """What a stream holds beside its events."""

    include_obfuscation: Ignored = None


def _to_items(value: object) -> object:
    """Turn a text into a list of one message."""
    return [{"type": "message", "role": "user", "content": value}] if _is_text(value) else value


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _has_no_effect(value: object) -> object:
    if value in WITHOUT_EFFECT:
        return value
    raise PydanticCustomError(UnsupportedFieldError.code, "This value is not supported")


Items = Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS)]


class ResponseRequest(SentPart):
    """A text or a list of items to answer; what isn't supported is taken where it has no effect."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {"model": "smollm2", "input": "What is the capital of France?", "max_output_tokens": 64}
        )
    )

    model: Annotated[
        str | None, Field(min_length=1, description="Default: the first chat model.")
    ] = None
    input: Annotated[Items, BeforeValidator(_to_items, json_schema_input_type=str | list[Item])]
    instructions: Annotated[
        str | None, Field(description="Of the system; not kept for the next response.")
    ] = None
    previous_response_id: Annotated[
        str | None, Field(description="Of the kept response that this one goes on from.")
    ] = None
    store: Annotated[
        bool | None, Field(description="Whether the response is kept; it is unless this is false.")
    ] = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    text: TextOptions | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: Annotated[
        bool | None, Field(description="Whether one answer may call several functions.")
    ] = None
    metadata: Annotated[dict[str, str] | None, Field(max_length=16)] = None

    include: list[Annotated[str, BeforeValidator(_has_no_effect)]] | None = None
    max_tool_calls: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    user: Ignored = None

    background: Annotated[Any, Only(None, False, hint=IN_WORDS)] = None  # noqa: FBT003  # a value
    conversation: Annotated[Any, Only(None, {}, hint=BY_RESPONSE)] = None
    prompt: Annotated[Any, Only(None, {}, hint=NO_PROMPTS)] = None
    reasoning: ReasoningOptions | None = None
    top_logprobs: Annotated[Any, Only(None, 0)] = None
    truncation: Annotated[Any, Only(None, "disabled", hint=NOT_CUT)] = None

    @property
    def is_kept(self) -> bool:
        """Whether the response is to be kept."""
        return self.store is not False

    @property
    def format(self) -> Mapping[str, Any]:
        """The format of the text, as the client wrote it."""
        asked = self.text.format if self.text else None
        return asked.sent if asked else {"type": "text"}

    def options(self) -> GenerationOptions:
        """Return what the engine needs to know."""
        asked = self.text.format if self.text else None
        return GenerationOptions(
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=asked.as_chat() if asked else None,
            tools=tuple(tool.as_chat() for tool in self.tools or ()),
            tool_choice=choice_as_chat(self.tool_choice),
            parallel_tool_calls=self.parallel_tool_calls,
            reasoning_effort=self.reasoning.effort if self.reasoning else None,
        )
