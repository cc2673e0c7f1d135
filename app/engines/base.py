"""What every engine offers: the protocols that services and the registry rely on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from app.errors import ServiceError

if TYPE_CHECKING:  # it takes most of a second to import, and only chat needs it
    from langchain_core.language_models.chat_models import BaseChatModel

    from app.engines.vector_rules import VectorRules

FloatArray = npt.NDArray[np.float32]


class Task(StrEnum):
    """What the engines of this package do; other packages add strings of their own."""

    CLASSIFICATION = "text-classification"
    EMBEDDING = "embedding"
    CHAT = "chat"


OWN_TASKS = frozenset(Task)
# What the Hugging Face Hub calls them.
HUB_NAMES: Mapping[str, Task] = {
    "feature-extraction": Task.EMBEDDING,
    "sentence-similarity": Task.EMBEDDING,
    "text-generation": Task.CHAT,
}


class Activation(StrEnum):
    """What makes scores of a classifier's logits."""

    SOFTMAX = "softmax"  # labels that exclude each other
    SIGMOID = "sigmoid"  # a probability each
    NONE = "none"  # a regression: the numbers are the answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One text as its engine takes it."""

    token_ids: Sequence[int]
    is_truncated: bool
    type_ids: Sequence[int] = ()  # of each token, for models that tell types apart
    left_out: int = 0  # tokens at its beginning that aren't pooled: a prompt's

    @property
    def cost(self) -> int:
        """Tokens that the engine has to run."""
        return len(self.token_ids)

    @property
    def is_empty(self) -> bool:
        """Whether it has no tokens, or none but those that aren't pooled."""
        return self.cost <= self.left_out


@runtime_checkable
class TextEngine(Protocol):
    """What classifiers and embedders share. All methods block and may run in any thread."""

    kind: str  # "torch", "openvino" or "fake": which engine really serves
    device: str
    max_tokens: int  # the window: longer texts are cut to it

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; a text longer than the model's window is cut and says so."""
        ...

    def close(self) -> None:
        """Give the memory back. Called once, when no call is running."""
        ...


@runtime_checkable
class Classifier(TextEngine, Protocol):
    """Gives each text a number for each label: a probability, or what a regression predicts."""

    labels: tuple[str, ...]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, labels) float32."""
        ...


@runtime_checkable
class RowEngine(TextEngine, Protocol):
    """Gives each text a row of another task's kind: labels of tokens, a language, ..."""

    def run(self, batch: Sequence[Encoded]) -> Sequence[Any]:
        """Return a row for each text of the batch."""
        ...


@runtime_checkable
class Activated(Protocol):
    """A classifier that says what its scores are; those of one that doesn't are probabilities."""

    activation: Activation


def is_regression(engine: object) -> bool:
    """Say whether a classifier's scores are numbers of any size, and no label is the winner."""
    return isinstance(engine, Activated) and engine.activation is Activation.NONE


def unit(vectors: FloatArray) -> FloatArray:
    """Return vectors, (…, dimensions), scaled to length 1."""
    scaled: FloatArray = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


@runtime_checkable
class Embedder(TextEngine, Protocol):
    """Turns each text into a vector, of length 1 where the model's own are."""

    dimensions: int  # of the model's vectors, uncut
    vector_rules: "VectorRules"
    passage_tokens: int  # that fit into the window beside the special ones

    def encode(self, texts: Sequence[str], prompt: str = "") -> list[Encoded]:
        """Tokenise texts with a prompt before each; too long a text is cut and says so."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length, in characters and in order."""
        ...

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """How a caller wants its answer; None leaves it to the engine."""

    max_tokens: int | None = None  # None: to the end of the context
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    response_format: Mapping[str, Any] | None = None  # OpenAI's `response_format`

    def given(self) -> dict[str, Any]:
        """Return what the caller asked for, by OpenAI's names."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in fields.items() if value not in (None, ())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a generation cost, in tokens."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0  # of the prompt, that were found in the prefix cache

    @property
    def total_tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer."""

    text: str
    finish_reason: str  # "stop", "length"; "cancelled" when `on_token` said so
    usage: Usage | None  # None: a remote engine that doesn't say


# Takes the next piece of the answer; returns whether to stop.
OnToken = Callable[[str], bool]


class Generator(Protocol):
    """An engine in this process that answers a conversation token by token."""

    kind: str
    device: str
    context_tokens: int

    def check(self, options: GenerationOptions) -> None:
        """Let options pass that the engine can do; costs no more than a few milliseconds.

        Raises:
            OptionsRefusedError: it can't, for a reason that is seen without the model.

        """
        ...

    def generate(
        self, messages: Sequence[Message], options: GenerationOptions, *, on_token: OnToken
    ) -> Generation:
        """Generate until the end, a bound of `options`, or until `on_token` returns True.

        Blocks its thread and calls `on_token` in it, once for each piece of text; several threads
        may generate at once.

        Raises:
            ContextLengthExceededError: the prompt is longer than the context.
            OptionsRefusedError: the engine can't do what `options` ask.

        """
        ...

    def close(self) -> None:
        """Give the memory back. Called once, when no call is running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """What a failure of a chat engine means to the caller."""

    error: ServiceError
    is_transient: bool = False  # the same request may succeed in a moment


@runtime_checkable
class ChatEngine(Protocol):
    """A LangChain chat model, in this process or behind somebody's API."""

    kind: str  # "llama_cpp", "remote" or "fake"
    device: str
    chat_model: "BaseChatModel"

    def check(self, options: GenerationOptions) -> None:
        """Let options pass that the engine can do; called before there is a place for them.

        Raises:
            OptionsRefusedError: it can't, for a reason that is seen without the model.

        """
        ...

    def arguments(self, options: GenerationOptions) -> dict[str, Any]:
        """Return options as the chat model's own arguments."""
        ...

    def explain(self, failure: Exception) -> Explained:
        """Say what an exception of the chat model means; nothing of keys or hosts in it."""
        ...

    def close(self) -> None:
        """Give memory, threads and connections back. Called once, when no call is running."""
        ...


Engine = Classifier | Embedder | RowEngine | ChatEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Where converted models are kept, and what of the processor they may use."""

    cache: Path
    cores: int = 1  # processor threads of all calls together
    calls: int = 1  # that may come at once
    streams: int | None = None  # calls that are computed side by side; None: by the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """What a catalogue entry says of an embedder; nothing: what its folder says."""

    pooling: tuple[str, ...] = ()
    normalize: bool | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)  # by name, before the folder's
    dimensions: int | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far the preparation of a model has come."""

    number: int  # from 1
    of: int
    name: str


OnStep = Callable[[Step], None]


def ignore_step(_step: Step) -> None:
    """Tell nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """All that an engine needs to load one model; sources are resolved and verified before."""

    name: str
    task: str
    engine: str
    folder: Path | None = None
    adapter: Path | None = None
    labels: tuple[str, ...] = ()
    max_tokens: int | None = None
    device: str = "auto"
    threads: int = 1  # processor threads that one call may use
    options: Mapping[str, Any] = field(default_factory=dict)
    openvino: OpenVinoOptions | None = None  # None: nothing is converted, "auto" is torch
    chat: ChatOptions | None = None
    embedding: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    on_step: OnStep = field(default=ignore_step, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Have one spelling of a task: names of converted models' folders are made of it."""
        if self.task in OWN_TASKS:
            object.__setattr__(self, "task", Task(self.task))
