"""Slots for generations: a bounded number run, a bounded number wait, the rest are refused.

The engine batches generations itself; what is decided here is which may start.
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

# Until the first generation has ended there is no mean; a wrong guess is soon corrected.
FIRST_GUESS_S = 5.0
# Weight of the latest generation in the mean.
MEMORY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationPolicy:
    """The bounds of one chat model."""

    slots: int  # generations at once
    waiting: int  # that may wait for a slot


@dataclass(slots=True, eq=False)
class Slot:
    """What one running generation occupies."""

    started_s: float
    progress_s: float  # when its last token came


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
        self._running: set[Slot] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mean_s: float | None = None
        self._is_closed = False

    async def acquire(self, deadline: Deadline) -> Slot:
        """Take a slot, to be given back with `release`; wait if one is likely to be free in time.

        Raises:
            OverloadedError: too many wait, or the predicted wait is longer than the deadline.
            DeadlineExceededError: the deadline passed while it waited.
            NotReadyError: the model is closed.

        """
        await self._wait_for_slot(deadline)
        now_s = monotonic()
        slot = Slot(started_s=now_s, progress_s=now_s)
        self._running.add(slot)
        self.metrics.active(len(self._running))
        return slot

    def start(self, generation: Coroutine[Any, Any, None], held: ExitStack) -> asyncio.Task[None]:
        """Run a generation in a task; what it holds is given back when the task has ended.

        The task can't do that itself: cancelled before its first step, it runs none of its code.
        """

        def end(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            held.close()

        task = asyncio.create_task(generation)
        self._tasks.add(task)
        task.add_done_callback(end)
        return task

    async def _wait_for_slot(self, deadline: Deadline) -> None:
        """Wait for a free slot, in the order of arrival."""
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
        """Refuse a generation that would wait too long; Retry-After says when to come back."""
        mean_s = FIRST_GUESS_S if self._mean_s is None else self._mean_s
        # One slot comes free every mean_s / slots.
        predicted_s = (self._waiting + 1) * mean_s / self._policy.slots
        is_full = self._waiting >= self._policy.waiting
        if is_full or predicted_s > deadline.remaining_s:
            self.metrics.refused("overloaded")
            late_s = predicted_s - deadline.remaining_s
            wait_s = max(mean_s / self._policy.slots if is_full else 0.0, late_s)
            raise OverloadedError(retry_after_s=max(1, math.ceil(wait_s)))

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        seconds = monotonic() - slot.started_s
        mean_s = seconds if self._mean_s is None else self._mean_s
        self._mean_s = mean_s + MEMORY * (seconds - mean_s)
        self._running.discard(slot)
        self.metrics.active(len(self._running))
        self._slots.release()

    @property
    def can_close_early(self) -> bool:
        """No: a generation that runs uses the memory that would be freed."""
        return False

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is stuck, for `/health`; empty when all is well.

        A restart of this process wouldn't help when it is a remote server that is silent.
        """
        if self.engine.kind == "remote":
            return []
        silent_s = self.longest_call_s()
        if silent_s <= max_call_s:
            return []
        return [f"{self._name}: a generation has been silent for {silent_s:.0f} s"]

    def longest_call_s(self) -> float:
        """Return the longest time since any generation's last token; 0 when none runs."""
        oldest_s = min((slot.progress_s for slot in self._running), default=None)
        return 0.0 if oldest_s is None else monotonic() - oldest_s

    def close(self, *, timeout_s: float) -> None:  # noqa: ARG002  # threads end with their token
        """Take no more, and close the engine; no generation runs any more."""
        self._is_closed = True
        self.engine.close()
