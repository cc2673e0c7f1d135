"""The wire contract of `/v1/chat/completions`: OpenAI's, as far as this service can keep it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from app.errors import UnsupportedFieldError
from app.http.openai_schemas import AsSent, Ignored, Only, OpenAiRequest, listed
from app.models.schemas import Response, example, whole_number
from app.tasks.chat.openai_messages import ChatCompletionMessage, answer_calls
from app.tasks.chat.openai_tools import AnsweredToolCall, ToolChoice, Tools
from app.tasks.chat.schemas import (
    MAX_MESSAGES,
    MAX_STOPS,
    ChatUsage,
    MaxTokens,
    StopText,
    Temperature,
)

MESSAGES = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


class TextFormat(AsSent):
    """Text, as without a format."""

    type: Literal["text"]


class JsonObjectFormat(AsSent):
    """Any JSON."""

    type: Literal["json_object"]


class NamedSchema(OpenAiRequest):
    """A JSON Schema, which the answer always follows, `strict` or not."""

    name: Annotated[str, Field(min_length=1)]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(AsSent):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


def _format_tag(value: object) -> str | None:
    return f"<{value['type']}>" if isinstance(value, dict) and "type" in value else None


# A tag becomes a part of an error's place; the brackets tell it from a field.
ResponseFormat = Annotated[
    Annotated[TextFormat, Tag("<text>")]
    | Annotated[JsonObjectFormat, Tag("<json_object>")]
    | Annotated[JsonSchemaFormat, Tag("<json_schema>")],
    Discriminator(
        _format_tag,
        custom_error_type=UnsupportedFieldError.code,
        custom_error_message="This format is not supported",
    ),
]


class StreamOptions(OpenAiRequest):
    """What a stream holds beside the tokens."""

    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, Only(None, False)] = None  # noqa: FBT003  # a value


# For fields that OpenAI has given up, and that newer clients don't send.
NEW_TOOLS = "it is the old form of `tools`, which this service takes."
NEW_CHOICE = "it is the old form of `tool_choice`, which this service takes."
Stops = Annotated[list[StopText], Field(max_length=MAX_STOPS)]


class ChatCompletionRequest(OpenAiRequest):
    """A conversation to go on with; what isn't supported is taken where it has no effect."""

    model_config = ConfigDict(
        json_schema_extra=example({"model": "smollm2", "messages": MESSAGES, "max_tokens": 64})
    )

    model: Annotated[str, Field(min_length=1)]
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
    seed: Annotated[int, BeforeValidator(whole_number)] | None = None
    stop: (
        Annotated[Stops, BeforeValidator(listed, json_schema_input_type=StopText | Stops)] | None
    ) = None
    response_format: ResponseFormat | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice = None
    parallel_tool_calls: Annotated[
        bool | None, Field(description="Whether one answer may call several tools.")
    ] = None
    n: Annotated[Any, Only(None, 1)] = None

    metadata: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    user: Ignored = None

    frequency_penalty: Annotated[Any, Only(None, 0)] = None
    function_call: Annotated[Any, Only(None, "none", "auto", hint=NEW_CHOICE)] = None
    functions: Annotated[Any, Only(None, [], hint=NEW_TOOLS)] = None
    logit_bias: Annotated[Any, Only(None, {})] = None
    logprobs: Annotated[Any, Only(None, False)] = None  # noqa: FBT003  # a value
    modalities: Annotated[Any, Only(None, ["text"])] = None
    presence_penalty: Annotated[Any, Only(None, 0)] = None
    reasoning_effort: Annotated[Any, Only(None, "none")] = None
    store: Annotated[Any, Only(None, False)] = None  # noqa: FBT003  # a value
    top_logprobs: Annotated[Any, Only(None, 0)] = None
    verbosity: Annotated[Any, Only(None, "medium")] = None


class PromptTokensDetails(Response):
    """What there is to say of a prompt's tokens."""

    cached_tokens: int


class CompletionUsage(ChatUsage):
    """Tokens of one answer, as OpenAI counts them."""

    prompt_tokens_details: PromptTokensDetails


class AssistantMessage(Response):
    """The answer."""

    role: Literal["assistant"] = "assistant"
    content: Annotated[str | None, Field(description="Null where it only calls tools.")]
    refusal: str | None = None  # always null; generators can't read a field of null alone
    tool_calls: Annotated[
        list[AnsweredToolCall] | None,
        Field(description="The tools to call; left out where there are none."),
    ] = Field(None, exclude_if=lambda calls: calls is None)


class Choice(Response):
    """The one answer of a completion."""

    index: Literal[0] = 0
    message: AssistantMessage
    logprobs: dict[str, Any] | None = None  # as above
    finish_reason: str


class ChatCompletion(Response):
    """A whole answer."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "id": "chatcmpl-0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
                "object": "chat.completion",
                "created": 1795348800,
                "model": "smollm2",
                "choices": [
                    {
                        "index": 0,
                        "message": {
                            "role": "assistant",
                            "content": "The capital of France is Paris.",
                            "refusal": None,
                        },
                        "logprobs": None,
                        "finish_reason": "stop",
                    }
                ],
                "usage": {
                    "prompt_tokens": 27,
                    "completion_tokens": 8,
                    "total_tokens": 35,
                    "prompt_tokens_details": {"cached_tokens": 0},
                },
                "system_fingerprint": None,
            }
        )
    )

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: CompletionUsage | None
    system_fingerprint: str | None = None  # as above
