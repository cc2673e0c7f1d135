"""The wire contracts of chat: `/chat` and `/chat/stream`."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from app.models.schemas import ModelName, Request, Response, example, one_of_two, whole_number

MAX_MESSAGES = 1_024
MAX_STOPS = 4  # as OpenAI has it
MAX_STOP_CHARS = 256
MAX_TOKENS = 1_000_000  # only a bound; the model's context is the limit
MAX_SEED = 2**32 - 2  # llama.cpp has 32 bits, and the highest of them means "a random one"

Content = Annotated[str, Field(min_length=1)]
MaxTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS), BeforeValidator(whole_number)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), BeforeValidator(whole_number)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Stop = StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)]


class ChatMessage(Request):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Content


class ChatRequest(Request):
    """A question, or a conversation whose last message is the user's."""

    model_config = ConfigDict(
        json_schema_extra=one_of_two("query", "messages")
        | example({"query": "What is the capital of France?", "max_tokens": 64, "temperature": 0})
    )

    query: Content | None = Field(None, description="One question; instead of `messages`.")
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] | None = (
        Field(
            None,
            description="The conversation so far. A system message can only be the first, and"
            " takes the place of the model's own; the last is the user's.",
        )
    )
    model_name: ModelName = None
    max_tokens: MaxTokens | None = Field(
        None, description="Tokens of the answer; default: to the end of the model's context."
    )
    temperature: Temperature | None = None
    top_p: TopP | None = None
    seed: Seed | None = None
    stop: Stop | None = Field(None, description="Texts that end the answer before them.")

    @model_validator(mode="after")
    def is_a_conversation(self) -> Self:
        """Check what no single field can: one of two, and the order of roles."""
        if (self.query is None) == (self.messages is None):
            raise ValueError("give either query or messages")
        roles = [message.role for message in self.messages or ()]
        if "system" in roles[1:]:
            raise ValueError("only the first message can be the system's")
        if roles and roles[-1] != "user":
            raise ValueError("the last message must be the user's")
        return self


class ChatUsage(Response):
    """Tokens of one answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatResponse(Response):
    """A whole answer."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "answer": "The capital of France is Paris.",
                "finish_reason": "stop",
                "usage": {"prompt_tokens": 27, "completion_tokens": 8, "total_tokens": 35},
                "model": "smollm2",
            }
        )
    )

    answer: str
    finish_reason: str
    usage: ChatUsage | None = Field(description="Null when a remote engine doesn't say.")
    model: str
