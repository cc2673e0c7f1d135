"""The wire contract of `/v1/chat/completions`: OpenAI's, as far as this service can keep it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from app.errors import UnsupportedFieldError
from app.http.openai_fields import Refused, WithoutEffect
from app.http.openai_schemas import OpenAsSent, OpenPart, listed
from app.models.schemas import example, whole_number
from app.tasks.chat.openai_messages import ChatCompletionMessage, answer_calls
from app.tasks.chat.openai_tools import ToolChoice, Tools
from app.tasks.chat.schemas import (
    MAX_MESSAGES,
    MAX_STOPS,
    MAX_TOKENS,
    MaxTokens,
    StopText,
    Temperature,
)

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


class TextFormat(OpenAsSent):
    """Text, as without a format."""

    type: Literal["text"]


class JsonObjectFormat(OpenAsSent):
    """Any JSON."""

    type: Literal["json_object"]


class NamedSchema(OpenPart):
    """A JSON Schema, which the answer always follows, `strict` or not."""

    name: Annotated[str, Field(min_length=1)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(OpenAsSent):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


def _format_tag(value: object) -> str | None:
    return f"<{value['type']}>" if isinstance(value, dict) and "type" in value else None


# A tag becomes a part of an error's place; the brackets tell it from a field.
BY_TYPE = Discriminator(
    _format_tag,
    custom_error_type=UnsupportedFieldError.code,
    custom_error_message="This format is not supported",
)
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    BY_TYPE,
]


class StreamOptions(OpenPart):
    """What a stream holds beside the tokens."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[
        Any, Refused("chunks aren't filled up to hide their length", allowed=[False])
    ] = None
    continuous_usage_stats: Annotated[
        Any, WithoutEffect("the usage is in the last chunk alone, with `include_usage`")
    ] = None


# For fields that OpenAI has given up, and that newer clients don't send.
NEW_TOOLS = "it is the old form of `tools`, which this service takes"
NEW_CHOICE = "it is the old form of `tool_choice`, which this service takes"
MAX_BIASES = 1_024
MAX_DIGITS = 10
MAX_N = 128  # as OpenAI has it; the setting says how many there are
MAX_TOP_LOGPROBS = 20  # as OpenAI has it
ALL_TOKENS = -1  # of top_k, for some clients

Penalty = Annotated[float, Field(ge=-2, le=2)]
Bias = Annotated[float, Field(ge=-100, le=100)]


def _by_token(biases: Mapping[str, float]) -> Mapping[str, float]:
    """Refuse names that are no tokens' numbers; the schema leaves that to generators of clients."""
    if not all(name.isascii() and name.isdigit() and len(name) < MAX_DIGITS for name in biases):
        raise PydanticCustomError("no_token", "The names have to be numbers of tokens")
    return biases


LogitBias = Annotated[dict[str, Bias], Field(max_length=MAX_BIASES), AfterValidator(_by_token)]
Stops = Annotated[list[StopText], Field(max_length=MAX_STOPS)]
StopTexts = Annotated[Stops, BeforeValidator(listed, json_schema_input_type=StopText | Stops)]
Seed = Annotated[int, BeforeValidator(whole_number)]


def _wants_logprobs(top: int | None, info: ValidationInfo) -> int | None:
    """Refuse other tokens without `logprobs`, as OpenAI does."""
    if top and not info.data.get("logprobs"):
        raise PydanticCustomError("no_logprobs", "'logprobs' has to be true for 'top_logprobs'")
    return top


# Whatever a template makes of it.
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
CACHED = "prompts are always cached"
BY_KEY = "callers are told apart by their keys"


class ChatCompletionRequest(OpenAsSent):
    """A conversation to go on with; fields that aren't known here go to remote models."""

    model_config = ConfigDict(
        json_schema_extra=example({"model": "smollm2", "messages": MESSAGES, "max_tokens": 64})
    )

    model: Annotated[
        str | None, Field(min_length=1, description="Default: the default chat model.")
    ] = None
    messages: Annotated[
        list[ChatCompletionMessage],
        Field(min_length=1, max_length=MAX_MESSAGES),
        AfterValidator(answer_calls),
    ]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Seed | None = None
    stop: StopTexts | None = None
    n: Annotated[
        int | None,
        Field(ge=1, le=MAX_N, description="Answers; at most CHAT_MAX_ANSWERS."),
        BeforeValidator(whole_number),
    ] = None
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: Annotated[
        bool | None, Field(description="Whether one answer may call several tools.")
    ] = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[
        float | None, Field(gt=0, le=10, description="As vLLM has it; 1 changes nothing.")
    ] = None
    logit_bias: Annotated[LogitBias | None, Field(description="By the number of a token.")] = None
    top_k: Annotated[
        int | None, Field(ge=ALL_TOKENS, le=MAX_TOKENS, description="0 and -1: all tokens.")
    ] = None
    min_p: Annotated[float | None, Field(ge=0, le=1)] = None
    ignore_eos: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: Annotated[
        dict[str, Any] | None, Field(description="What the model's template knows by itself.")
    ] = None

    logprobs: Annotated[bool | None, Field(description="How likely each token was.")] = None
    top_logprobs: Annotated[
        int | None,
        Field(ge=0, le=MAX_TOP_LOGPROBS, description="So many other tokens with each."),
        AfterValidator(_wants_logprobs),
    ] = None

    metadata: Annotated[Any, WithoutEffect("completions aren't kept")] = None
    prediction: Annotated[Any, WithoutEffect("it is to make an answer quicker, not other")] = None
    prompt_cache_key: Annotated[Any, WithoutEffect(CACHED)] = None
    prompt_cache_options: Annotated[Any, WithoutEffect(CACHED)] = None
    prompt_cache_retention: Annotated[Any, WithoutEffect(CACHED)] = None
    safety_identifier: Annotated[Any, WithoutEffect(BY_KEY)] = None
    service_tier: Annotated[Any, WithoutEffect("all requests are served alike")] = None
    user: Annotated[Any, WithoutEffect(BY_KEY)] = None

    audio: Annotated[Any, Refused("there are texts only")] = None
    function_call: Annotated[Any, Refused(NEW_CHOICE, allowed=["none", "auto"])] = None
    functions: Annotated[Any, Refused(NEW_TOOLS, allowed=[[]])] = None
    modalities: Annotated[Any, Refused("there are texts only", allowed=[["text"]])] = None
    store: Annotated[Any, Refused("completions aren't kept", allowed=[False])] = None
    verbosity: Annotated[Any, Refused("say it in a message", allowed=["medium"])] = None
    web_search_options: Annotated[Any, Refused("nothing is looked up in the web")] = None
