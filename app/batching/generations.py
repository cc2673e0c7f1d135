"""Places for generations: a bounded number at once, a bounded number that wait, an honest refusal.

The engine batches generations itself; what is decided here is who may begin.
"""

import asyncio
import math
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from app.batching.deadline import Deadline
from app.core.metrics import Metrics
from app.core.model_metrics import GenerationMetrics
from app.engines.chat_base import ChatEngine
from app.errors import DeadlineExceededError, NotReadyError, OverloadedError

if TYPE_CHECKING:  # it imports LangChain, which only chat needs
    from app.engines.chain import ChatChain

# Before the first generation has ended nothing is known; a wrong guess is soon corrected.
FIRST_GUESS_S = 5.0
# Weight of the latest generation in the mean.
MEMORY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPolicy:
    """The bounds of one chat model."""

    slots: int  # generations at once
    waiting: int  # that may wait for a slot


@dataclass(slots=True, eq=False)
class Place:
    """One generation's place among those that run."""

    started_s: float
    progress_s: float  # when it last said something


class Generations:
    """Lets so many generations run at once; the rest wait in order, or are refused.

    Called from the event loop, except for `close`.

    Args:
        name: of the model, for metrics.
        engine: closed with this object.
        chain: runs conversations on it.
        policy: the bounds.
        metrics: where everything counts.

    """

    def __init__(
        self,
        name: str,
        *,
        engine: ChatEngine,
        chain: "ChatChain",
        policy: GenerationPolicy,
        metrics: Metrics,
    ) -> None:
        self.engine = engine
        self.chain = chain
        self.metrics = GenerationMetrics(metrics, name)
        self._name = name
        self._policy = policy
        self._slots = asyncio.Semaphore(policy.slots)
        self._waiting = 0
        self._running: set[Place] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mean_s: float | None = None
        self._is_closed = False

    async def enter(self, deadline: Deadline) -> Place:
        """Take a place, to be given back by `leave`; wait while there is hope to get it in time.

        Raises:
            OverloadedError: too many wait, or the wait would outlast the deadline.
            DeadlineExceededError: it outlasted the deadline all the same.
            NotReadyError: the model is closed.

        """
        await self._acquire(deadline)
        now_s = monotonic()
        place = Place(started_s=now_s, progress_s=now_s)
        self._running.add(place)
        self.metrics.active(len(self._running))
        return place

    def start(self, generation: Coroutine[Any, Any, None], held: ExitStack) -> asyncio.Task[None]:
        """Run a generation in a task; what it holds is given back when the task has ended.

        Not by the task itself: one that is cancelled before its first step runs no line.
        """

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            held.close()

        task = asyncio.create_task(generation)
        self._tasks.add(task)
        task.add_done_callback(end)
        return task

    async def _acquire(self, deadline: Deadline) -> None:
        """Take a slot, in the order of arrival."""
        if self._is_closed:
            raise NotReadyError("The model is being unloaded.", retry_after_s=1)
        if self._slots.locked():
            self._judge(deadline)
        self._waiting += 1
        self.metrics.waiting(self._waiting)
        try:
            async with asyncio.timeout(deadline.remaining_s):
                await self._slots.acquire()
        except TimeoutError:
            self.metrics.refused("deadline")
            raise DeadlineExceededError from None
        except asyncio.CancelledError:
            self.metrics.cancelled("queued")
            raise
        finally:
            self._waiting -= 1
            self.metrics.waiting(self._waiting)

    def _judge(self, deadline: Deadline) -> None:
        """Refuse at once what would wait too long; Retry-After says when it wouldn't."""
        mean_s = FIRST_GUESS_S if self._mean_s is None else self._mean_s
        # One slot comes free every mean_s / slots.
        predicted_s = (self._waiting + 1) * mean_s / self._policy.slots
        is_full = self._waiting >= self._policy.waiting
        if is_full or predicted_s > deadline.remaining_s:
            self.metrics.refused("overloaded")
            late_s = predicted_s - deadline.remaining_s
            wait_s = max(mean_s / self._policy.slots if is_full else 0.0, late_s)
            raise OverloadedError(retry_after_s=max(1, math.ceil(wait_s)))

    def leave(self, place: Place) -> None:
        """Give a place back."""
        seconds = monotonic() - place.started_s
        known = seconds if self._mean_s is None else self._mean_s
        self._mean_s = known + MEMORY * (seconds - known)
        self._running.discard(place)
        self.metrics.active(len(self._running))
        self._slots.release()

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is stuck, for `/health`; empty when all is well.

        Somebody else's server that is silent is nothing that a restart of this process mends.
        """
        if self.engine.kind == "remote":
            return []
        silent_s = self.longest_call_s()
        if silent_s <= max_call_s:
            return []
        return [f"{self._name}: a generation has been silent for {silent_s:.0f} s"]

    def longest_call_s(self) -> float:
        """Return for how long the most silent generation has said nothing; 0 without any."""
        oldest_s = min((place.progress_s for place in self._running), default=None)
        return 0.0 if oldest_s is None else monotonic() - oldest_s

    def close(self, *, timeout_s: float) -> None:  # noqa: ARG002  # threads end with their token
        """Take no more, and close the engine; nothing runs by now."""
        self._is_closed = True
        self.engine.close()
