"""The answers of `/v1/chat/completions`, in OpenAI's form."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.models.schemas import Response, example
from app.tasks.chat.openai_tools import AnsweredToolCall
from app.tasks.chat.schemas import ChatUsage


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
    reasoning_content: Annotated[
        str | None,
        Field(description="What the model thought before; left out where its engine doesn't tell."),
    ] = Field(None, exclude_if=lambda text: text is None)
    tool_calls: Annotated[
        list[AnsweredToolCall] | None,
        Field(description="The tools to call; left out where there are none."),
    ] = Field(None, exclude_if=lambda calls: calls is None)


class Choice(Response):
    """One answer; there are several where `n` asks for them."""

    index: int = 0
    message: AssistantMessage
    logprobs: dict[str, Any] | None = None
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
