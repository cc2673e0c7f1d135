"""What chat engines offer: conversations, options and answers, and the protocols around them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from app.engines.tool_calls import Piece, ToolCall
from app.errors import ServiceError, UnsupportedFieldError

if TYPE_CHECKING:  # it takes most of a second to import
    from langchain_core.language_models.chat_models import BaseChatModel

# What `GenerationOptions` has for other servers.
RELAYED = ("sent", "foreign")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; role is system, user, assistant or tool."""

    role: str
    content: str  # empty where the assistant only called tools
    tool_calls: tuple[ToolCall, ...] = ()  # of the assistant
    tool_call_id: str | None = None  # of a tool: the call that it answers
    # As the client wrote it in OpenAI's dialect: what a remote server of that dialect gets.
    sent: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def texts(self) -> tuple[str, ...]:
        """All that a model reads of it."""
        return (self.content, *(part for c in self.tool_calls for part in (c.name, c.arguments)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignField:
    """A field in OpenAI's dialect that engines of this process don't have; a server may."""

    path: str  # as OpenAI writes it: `messages[0].content[1].type`
    reason: str | None = None

    def refusal(self) -> UnsupportedFieldError:
        """Return the error for a model that hasn't it."""
        why = f": {self.reason}" if self.reason else " with this value."
        return UnsupportedFieldError(self.path, detail=f"{self.path!r} is not supported{why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How a caller wants its answer; None leaves it to the engine."""

    max_tokens: int | None = None  # None: to the end of the context
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None  # OpenAI's `response_format`
    tools: tuple[Mapping[str, Any], ...] = ()  # OpenAI's `tools`, functions only
    tool_choice: str | Mapping[str, Any] | None = None  # OpenAI's; None: auto
    parallel_tool_calls: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None  # by the tokens' numbers
    reasoning_effort: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None  # of other tokens for each
    # Not OpenAI's, but of vLLM's and llama.cpp's servers.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    # The message is a text to go on with, as it is: no template, no system prompt.
    is_raw: bool | None = None
    # What isn't any of these: as it was sent, and what of it only another server may know.
    sent: Mapping[str, Any] = field(default_factory=dict, repr=False)
    foreign: tuple[ForeignField, ...] = ()

    def as_openai(self) -> dict[str, Any]:
        """Return the options that are set, by OpenAI's names."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in RELAYED}
        return {name: value for name, value in fields.items() if value not in (None, ())}

    def refuse_foreign(self) -> None:
        """Refuse what engines of this process don't have.

        Raises:
            UnsupportedFieldError: there is something.

        """
        for foreign in self.foreign:
            raise foreign.refusal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, that were in the prefix cache
    cache_write_tokens: int = 0  # of the prompt, that are in it from now on
    reasoning_tokens: int = 0  # of the answer, that were thoughts, where a server says so

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer."""

    text: str
    finish_reason: str  # "stop", "length", "tool_calls"; "cancelled" when `on_token` returned True
    usage: Usage | None  # None: a remote engine that doesn't say
    tool_calls: tuple[ToolCall, ...] = ()
    scores: tuple[Mapping[str, Any], ...] = ()  # of its tokens, as OpenAI's `logprobs.content`
    thoughts: str = ""  # before the answer, where its engine tells them apart


# Takes the next piece of the answer; returns whether to stop.
OnToken = Callable[[Piece], bool]


class Generator(Protocol):
    """An engine in this process that answers a conversation token by token."""

    kind: str
    device: str
    context_tokens: int

    def check(self, options: GenerationOptions) -> None:
        """Check that the engine supports these options; takes no more than a few milliseconds.

        Raises:
            OptionsRefusedError: it doesn't, which is known without running the model.

        """
        ...

    def generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, on_token: OnToken
    ) -> Generation:
        """Generate until the end, a bound of `options`, or until `on_token` returns True.

        Blocks its thread and calls `on_token` in it, once for each piece of text or of a call;
        several threads may generate at once.

        Raises:
            ContextLengthExceededError: the prompt is longer than the context.
            OptionsRefusedError: the engine can't do what `options` ask.

        """
        ...

    def close(self) -> None:
        """Free the memory. Called once, when no call is running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFailure:
    """A failure of a chat engine, as the caller is told of it."""

    error: ServiceError
    is_transient: bool = False  # the same request may succeed in a moment


@runtime_checkable
class ChatEngine(Protocol):
    """A LangChain chat model, in this process or behind a remote API."""

    kind: str  # "llama_cpp", "remote" or "fake"
    device: str
    chat_model: "BaseChatModel"

    def check(self, options: GenerationOptions) -> None:
        """Check that the engine supports these options; called before a slot is free.

        Raises:
            OptionsRefusedError: it doesn't, which is known without running the model.

        """
        ...

    def arguments(self, options: GenerationOptions, messages: Sequence[Message]) -> dict[str, Any]:
        """Return options as the chat model's own arguments.

        `messages` are given to the chat model besides, as LangChain's; a server of OpenAI's
        dialect gets them as they were sent.

        Raises:
            OptionsRefusedError: the chat model has no tools.

        """
        ...

    def explain(self, failure: Exception) -> ChatFailure:
        """Translate an exception of the chat model; the result holds no keys or hosts."""
        ...

    def close(self) -> None:
        """Free memory, threads and connections. Called once, when no call is running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """What chat engines need beyond the files."""

    slots: int  # generations at once
    context_tokens: int  # of each generation: prompt and answer
    cores: int = 1  # processor threads of all generations together
    source: str = ""  # a remote model as LangChain's init_chat_model spells it
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0  # of a remote server's silence
    pass_fields: bool = True  # to a remote server: those that this service doesn't know
