"""What engines offer and what they are loaded with; chat engines have `chat_base` besides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from app.engines.chat_base import ChatEngine, ChatOptions
from app.engines.items import ItemEngine

if TYPE_CHECKING:
    from app.engines.python.models import CallModel
    from app.engines.token_windows import TokenRow
    from app.engines.vector_rules import VectorRules

FloatArray = npt.NDArray[np.float32]
Pair = tuple[str, str]  # two texts that are read together
TextOrPair = str | Pair


class Task(StrEnum):
    """What the engines of this package do; other packages add strings of their own."""

    CLASSIFICATION = "text-classification"
    EMBEDDING = "embedding"
    NER = "token-classification"
    CHAT = "chat"
    PYTHON = "python"  # what the class says, or the graph
    RANKING = "text-ranking"  # how well a text answers a query
    ZERO_SHOT = "zero-shot-classification"  # whether one text follows from another
    IMAGE_CLASSIFICATION = "image-classification"
    IMAGE_EMBEDDING = "image-embedding"


OWN_TASKS = frozenset(Task)
# Those of models that transformers calls sequence classifiers; in front of the head they are alike.
CLASSIFYING = frozenset({Task.CLASSIFICATION, Task.RANKING, Task.ZERO_SHOT})
# Those whose models have pairs of texts and no single ones.
PAIRED = frozenset({Task.RANKING, Task.ZERO_SHOT})
IMAGE_TASKS = frozenset({Task.IMAGE_CLASSIFICATION, Task.IMAGE_EMBEDDING})
# What the Hugging Face Hub calls them.
HUB_NAMES: Mapping[str, Task] = {
    "feature-extraction": Task.EMBEDDING,
    "image-feature-extraction": Task.IMAGE_EMBEDDING,
    "sentence-similarity": Task.EMBEDDING,
    "text-generation": Task.CHAT,
}


class Activation(StrEnum):
    """What makes scores of a classifier's logits."""

    SOFTMAX = "softmax"  # labels that exclude each other
    SIGMOID = "sigmoid"  # a probability each
    NONE = "none"  # a regression: the numbers are the answer
    LOGITS = "logits"  # they are compared with those of other pairs, or ranked


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One text as its engine takes it."""

    token_ids: Sequence[int]
    is_truncated: bool
    type_ids: Sequence[int] = ()  # of each token, for models that tell types apart
    left_out: int = 0  # tokens at its beginning that aren't pooled: a prompt's
    unknown: int | None = None  # tokens that stand for words that the tokeniser doesn't know

    @property
    def cost(self) -> int:
        """Tokens that the engine has to run."""
        return len(self.token_ids)

    @property
    def first_window(self) -> "Encoded":
        """So much of it as the model sees at once; of most texts all."""
        return self

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

    def encode(self, texts: Sequence[str], /) -> Sequence[Encoded]:
        """Tokenise; a text longer than the model's window is cut and says so."""
        ...

    def close(self) -> None:
        """Free the memory. Called once, when no call is running."""
        ...


@runtime_checkable
class Classifier(TextEngine, Protocol):
    """Gives each text a number for each label: a probability, or what a regression predicts."""

    labels: tuple[str, ...]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return scores, (batch, labels) float32."""
        ...


class PairClassifier(Classifier, Protocol):
    """A classifier that can be given pairs of texts, if it says so."""

    takes_pairs: bool
    needs_pairs: bool  # its model was trained with pairs alone: a single text has no right answer
    entailment: int | None  # the label of a pair whose second text follows from the first

    def encode(self, texts: Sequence[TextOrPair], /) -> list[Encoded]:
        """Tokenise texts and pairs; what is longer than the window is cut and says so."""
        ...


def takes_pairs(engine: object) -> bool:
    """Say whether a classifier can be given pairs of texts."""
    return bool(getattr(engine, "takes_pairs", False))


def needs_pairs(engine: object) -> bool:
    """Say whether a classifier can be given nothing else."""
    return bool(getattr(engine, "needs_pairs", False))


@runtime_checkable
class TokenClassifier(TextEngine, Protocol):
    """Gives each token of a text a number for each label; a long text runs in windows."""

    labels: tuple[str, ...]

    def classify_tokens(self, batch: Sequence[Encoded]) -> Sequence["TokenRow"]:
        """Return what is said of the tokens of each text."""
        ...


@runtime_checkable
class RowEngine(TextEngine, Protocol):
    """Gives each text a row for another task: a language, a summary, ..."""

    def run(self, batch: Sequence[Encoded]) -> Sequence[Any]:
        """Return a row for each text of the batch."""
        ...


def is_regression(engine: object) -> bool:
    """Say whether a classifier's scores are numbers of any size, and no label is the winner.

    An engine may say what its scores are, as its `activation`; otherwise they are probabilities.
    """
    # Not a protocol that is checked at run time: that takes 13 µs, for each request.
    return getattr(engine, "activation", None) is Activation.NONE


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

    def encode(self, texts: Sequence[str], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts with a prompt before each; too long a text is cut and says so."""
        ...

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length, in characters and in order."""
        ...

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32."""
        ...


Engine = Classifier | Embedder | TokenClassifier | RowEngine | ItemEngine | ChatEngine


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Where converted models are kept, and what of the processor they may use."""

    cache: Path
    cores: int = 1  # processor threads of all calls together
    calls: int = 1  # that may come at once
    streams: int | None = None  # calls that are computed side by side; None: by the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class PythonOptions:
    """Which class of the operator's runs, and how."""

    source: str
    base: Path  # where a relative file starts
    pins: Mapping[str, str] = field(default_factory=dict)  # file name → sha256; "": its one file
    workers: int = 1  # calls at once
    shows_output: bool = False  # whether the log has what it prints
    isolation: str = "thread"  # or "process"; "": by the device
    timeout_s: float = 30.0  # of a call in a process, which is ended and replaced then
    streams: int = 8  # at once
    hidden: frozenset[str] = frozenset()  # variables that a process doesn't get
    uses: tuple[str, ...] = ()  # models that it may call


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How large an image may be, and how many are worked on at once."""

    max_pixels: int = 33_554_432
    workers: int = 1  # calls of the engine at once, and threads that decode


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """What a catalogue entry says of an embedder; nothing: what its folder says."""

    pooling: tuple[str, ...] = ()
    normalize: bool | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)  # by name, before the folder's
    dimensions: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """How far the preparation of a model has come."""

    number: int  # from 1
    of: int
    name: str


OnStep = Callable[[Step], None]


def ignore_step(_step: Step) -> None:
    """Ignore a step."""


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
    device: str = "auto"  # or "cpu", "cuda", "cuda:1"
    is_own_device: bool = False  # its entry names it; else it is the setting for all models
    threads: int = 1  # processor threads that one call may use
    options: Mapping[str, Any] = field(default_factory=dict)
    openvino: OpenVinoOptions | None = None  # None: nothing is converted, "auto" is torch
    chat: ChatOptions | None = None
    python: PythonOptions | None = None
    call_model: "CallModel | None" = None  # carries the calls of a class to other models
    embedding: EmbeddingOptions = field(default_factory=EmbeddingOptions)
    images: ImageOptions = field(default_factory=ImageOptions)
    is_packed: bool = True  # texts may be run in rows, one behind the other
    on_step: OnStep = field(default=ignore_step, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Have one spelling of a task: names of converted models' folders depend on it."""
        if self.task in OWN_TASKS:
            object.__setattr__(self, "task", Task(self.task))

    @property
    def device_setting(self) -> str:
        """How the device was asked for, for messages."""
        return f'device = "{self.device}"' if self.is_own_device else f"DEVICE={self.device}"
