"""What services need of whatever runs a model's items: in this process, or in another."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from app.batching.deadline import Deadline
from app.batching.requests import Outcome
from app.engines.items import BatchEngine

E_co = TypeVar("E_co", bound=BatchEngine, covariant=True)


class Scheduler(Protocol[E_co]):
    """Runs the items of requests in batches."""

    @property
    def engine(self) -> E_co:
        """What the model says of itself; nothing but a scheduler may run it."""
        ...

    async def submit(
        self, items: Sequence[Any], *, deadline: Deadline, prompt: str = ""
    ) -> Outcome:
        """Run items; returns when all of them are done.

        Args:
            items: to run: texts, where the engine is for texts.
            deadline: when the answer is of no use any more.
            prompt: put before each text, for an embedder.

        Raises:
            OverloadedError: they can't be done before the deadline, or too much waits.
            DeadlineExceededError: the deadline passed before they were.
            NotReadyError, ModelNotReadyError: there is nothing that could run them.

        """
        ...

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is dead or stuck, for `/health`; empty when all is well."""
        ...

    def longest_call_s(self) -> float:
        """Return for how long the oldest running engine call has been running; 0: none is."""
        ...

    @property
    def can_close_early(self) -> bool:
        """Whether `close` is safe while calls run."""
        ...

    def close(self, *, timeout_s: float) -> None:
        """Stop, and free the memory; may block for that long."""
        ...
