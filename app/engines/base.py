"""What every engine offers: the protocols that services and the registry rely on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


class Task(StrEnum):
    """What a model does, in the field's own words."""

    CLASSIFICATION = "text-classification"
    EMBEDDING = "embedding"
    CHAT = "chat"


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One text as its engine takes it."""

    token_ids: Sequence[int]
    is_truncated: bool

    @property
    def cost(self) -> int:
        """Tokens that the engine has to run."""
        return len(self.token_ids)


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
    """Gives each text a probability for each label."""

    labels: tuple[str, ...]

    def classify(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return probabilities, (batch, labels) float32."""
        ...


@runtime_checkable
class Embedder(TextEngine, Protocol):
    """Turns each text into a vector of length 1."""

    dimensions: int

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return unit vectors, (batch, dimensions) float32."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation; role is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A finished answer and what it cost, in tokens."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


@runtime_checkable
class Generator(Protocol):
    """Answers a conversation token by token."""

    kind: str
    device: str

    def generate(
        self, messages: Sequence[Message], *, max_tokens: int, on_token: Callable[[str], bool]
    ) -> Generation:
        """Generate until the end or `max_tokens`; stop when `on_token` returns True.

        Blocks its thread and calls `on_token` in it, once for each piece of text.
        """
        ...

    def close(self) -> None:
        """Give the memory back. Called once, when no call is running."""
        ...


Engine = Classifier | Embedder | Generator


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVinoOptions:
    """Where converted models are kept, and what of the processor they may use."""

    cache: Path
    cores: int = 1  # processor threads of all calls together
    calls: int = 1  # that may come at once
    streams: int | None = None  # calls that are computed side by side; None: by the processor


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """All that an engine needs to load one model; sources are resolved and verified before."""

    name: str
    task: Task
    engine: str
    folder: Path | None = None
    adapter: Path | None = None
    labels: tuple[str, ...] = ()
    max_tokens: int | None = None
    device: str = "auto"
    threads: int = 1  # processor threads that one call may use
    options: Mapping[str, Any] = field(default_factory=dict)
    openvino: OpenVinoOptions | None = None  # None: nothing is converted, "auto" is torch
