"""The wire contract of `/v1/completions`: a text that the model goes on with."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.http.openai_fields import Refused, WithoutEffect
from app.http.openai_schemas import OpenAsSent, listed, unsupported
from app.models.schemas import Response, example, whole_number
from app.tasks.chat.openai_answers import CompletionUsage
from app.tasks.chat.openai_schemas import (
    ALL_TOKENS,
    BY_KEY,
    MAX_N,
    MAX_TOP_LOGPROBS,
    LogitBias,
    Penalty,
    Seed,
    StopTexts,
    StreamOptions,
)
from app.tasks.chat.schemas import MAX_TOKENS, MaxTokens, Temperature

DEFAULT_MAX_TOKENS = 16  # as OpenAI has it
Prompt = Annotated[str, Field(min_length=1)]
Prompts = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_N)]


def _texts(value: object) -> object:
    """Turn one text into a list of one; tokens, which OpenAI takes too, are unsupported."""
    if isinstance(value, list) and any(isinstance(item, int | list) for item in value):
        raise unsupported("send texts; a model's tokens aren't taken")
    return listed(value)


class CompletionRequest(OpenAsSent):
    """Texts to go on with, as they are: without a template and a system prompt."""

    model_config = ConfigDict(
        json_schema_extra=example({"model": "smollm2", "prompt": "Once upon a", "max_tokens": 16})
    )

    model: Annotated[
        str | None, Field(min_length=1, description="Default: the default chat model.")
    ] = None
    prompt: Annotated[Prompts, BeforeValidator(_texts, json_schema_input_type=Prompt | Prompts)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    echo: Annotated[bool | None, Field(description="Begin each answer with its prompt.")] = None
    max_tokens: Annotated[
        MaxTokens | None, Field(description=f"Default: {DEFAULT_MAX_TOKENS}, as OpenAI has it.")
    ] = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Seed | None = None
    stop: StopTexts | None = None
    n: Annotated[
        int | None,
        Field(ge=1, le=MAX_N, description="Answers to each prompt; at most CHAT_MAX_ANSWERS."),
        BeforeValidator(whole_number),
    ] = None
    logprobs: Annotated[
        int | None,
        Field(ge=0, le=MAX_TOP_LOGPROBS, description="So many likely tokens for each."),
    ] = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    logit_bias: LogitBias | None = None
    top_k: Annotated[int, Field(ge=ALL_TOKENS, le=MAX_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    ignore_eos: bool | None = None

    user: Annotated[Any, WithoutEffect(BY_KEY)] = None

    best_of: Annotated[Any, Refused("there is no choice of the best; ask for `n`", allowed=[1])] = (
        None
    )
    suffix: Annotated[Any, Refused("models here go on; they fill no gaps", allowed=[""])] = None


class CompletionLogprobs(Response):
    """How likely each token was."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: Annotated[list[int], Field(description="Where each begins, in characters.")]


class CompletionChoice(Response):
    """One answer."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str


class Completion(Response):
    """All answers: `n` to the first prompt, then those to the second."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "id": "cmpl-0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
                "object": "text_completion",
                "created": 1795348800,
                "model": "smollm2",
                "choices": [
                    {"index": 0, "text": " time", "logprobs": None, "finish_reason": "length"}
                ],
                "usage": {
                    "prompt_tokens": 3,
                    "completion_tokens": 1,
                    "total_tokens": 4,
                    "prompt_tokens_details": {"cached_tokens": 0},
                },
                "system_fingerprint": None,
            }
        )
    )

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | None
    system_fingerprint: str | None = None
