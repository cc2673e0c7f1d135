"""What the scheduler needs of an engine, and the engines whose items aren't texts."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:  # processes of Python classes import this, and count nothing
    from app.core.model_metrics import ProcessMetrics
    from app.errors import StartupError


class Prepared(Protocol):
    """An item of a request as its engine takes it; of a text, its tokens (`Encoded`)."""

    @property
    def cost(self) -> int:
        """The work of running it, at least 1; of a text, its tokens."""
        ...

    @property
    def is_truncated(self) -> bool:
        """Whether something of it was left out to fit the model."""
        ...


class DescribedItem(ABC):
    """An item of a request that no log may have itself."""

    @abstractmethod
    def describe(self) -> str:
        """Return what logs are given of it; once an engine has read it that may be more."""


class BatchEngine(Protocol):
    """What is run in batches: the engines of texts, and those of other items."""

    @property
    def kind(self) -> str:
        """Which engine really serves."""
        ...

    @property
    def device(self) -> str:
        """Where it computes."""
        ...

    def encode(self, texts: Sequence[Any], /) -> Sequence[Prepared | Exception]:
        """Prepare items, or say for each what is wrong with it."""
        ...

    def close(self) -> None:
        """Free the memory. Called once, when no call is running."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessCount:
    """How many of a model's processes can take calls now, of how many."""

    ready: int
    wanted: int


class RunsApart(Protocol):
    """Runs in processes of its own, which are started again when they end."""

    def processes(self) -> ProcessCount | None:
        """Return how many processes are up; None where it runs in this one."""
        ...

    def retry_after_s(self) -> int:
        """Return in how many seconds a process that has ended may be back."""
        ...

    def refusal(self) -> "StartupError | None":
        """Return why it couldn't be loaded again, if it couldn't; None while it may come back."""
        ...


@runtime_checkable
class ProcessEngine(RunsApart, Protocol):
    """An engine whose processes this process starts."""

    preparing: Executor | None  # where `encode` runs; None: with those of other models

    def watch(self, metrics: "ProcessMetrics") -> None:
        """Have processes and their ends counted."""
        ...


@runtime_checkable
class ItemEngine(Protocol):
    """Runs items that aren't texts. All methods but `estimate` and `problems` block."""

    kind: str
    device: str
    workers: int  # calls at once that it bears
    max_batch: int  # items in a call, where the catalogue doesn't say

    def estimate(self, items: Sequence[Any]) -> int:
        """Return about the cost of all; called on the event loop, before they are prepared."""
        ...

    def encode(self, items: Sequence[Any], /) -> Sequence[Prepared | Exception]:
        """Prepare items; one that is wrong has its error in its place."""
        ...

    def run(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Return a row for each prepared item, or the exception of one that failed alone."""
        ...

    def problems(self) -> list[str]:
        """Say what is wrong with the model, for `/health`; called on the event loop."""
        ...

    def close(self) -> None:
        """Free the memory. Called once, when no call is running."""
        ...


def calls_models(engine: object) -> bool:
    """Say whether an engine calls other models while it runs."""
    return bool(getattr(engine, "calls_models", False))


@runtime_checkable
class OwnThreads(Protocol):
    """An engine whose items take long to prepare: in its own threads they keep no text waiting."""

    threads: Executor  # closed with the engine
