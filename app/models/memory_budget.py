"""The memory that models on demand take together, and which of them go for another one."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from app.errors import EngineError, ModelNotReadyError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState
from app.models.leases import LOADING_RETRY_S

# In which what was unloaded has to free its memory: closing an engine takes a moment, what is still
# lent may take longer.
FREED_S = 5.0
NO_ROOM = "Other models that are in use take the memory that this one needs."
# Returns the bytes that a model takes, about; blocks.
Size = Callable[[ModelSpec], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The memory that models on demand may take together.

    Args:
        size: of a model, in bytes.
        limit_bytes: of all; None: as much as there is.

    """

    size: Size = lambda _: 0
    limit_bytes: int | None = None


class MemoryTaken:
    """Counts models from before their load until their memory is free. Use it on the loop only.

    Args:
        limit_bytes: of all.

    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # By the identity of entries: after a change of the catalogue there may be two of a name.
        self._counted: dict[int, ModelEntry] = {}
        self._leaving: dict[asyncio.Task[None], int] = {}  # the bytes of what is being closed

    def check(self, entry: ModelEntry) -> None:
        """Check that a model fits at all.

        Raises:
            EngineError: it alone is larger than the budget.

        """
        if entry.size_bytes > self._limit_bytes:
            size = f"about {entry.size_bytes // 2**20} MiB"
            raise EngineError(f"it takes {size}, more than MODELS_MEMORY_MB allows for all")

    def reserve(self, entry: ModelEntry) -> list[ModelEntry]:
        """Count a model from now on; return what has to go for it, least recently used first.

        Raises:
            ModelNotReadyError: what is lent or awaited takes too much; then nothing has to go.

        """
        lacking = self._counted_bytes + entry.size_bytes - self._limit_bytes
        displaced: list[ModelEntry] = []
        for one in sorted(self._counted.values(), key=lambda one: one.used_s):
            if lacking > 0 and one.state is ModelState.READY and not is_held(one):
                displaced.append(one)
                lacking -= one.size_bytes
        if lacking > 0:
            raise ModelNotReadyError(NO_ROOM, retry_after_s=LOADING_RETRY_S)
        self._counted[id(entry)] = entry
        return displaced

    def release(self, entry: ModelEntry) -> None:
        """Count a model no more that wasn't loaded."""
        self._counted.pop(id(entry), None)

    def note_dropped(self, entry: ModelEntry, closing: asyncio.Task[None]) -> None:
        """Note that a model is lent no more; its memory is free when it is closed."""
        self._counted.pop(id(entry), None)
        self._leaving[closing] = entry.size_bytes  # 0 of one that isn't on demand
        closing.add_done_callback(self._leaving.pop)

    async def await_freed(self) -> None:
        """Wait until there is room for all that are counted beside what is still being closed.

        Raises:
            ModelNotReadyError: that takes longer than `FREED_S`.

        """
        until_s = time.monotonic() + FREED_S
        while self._counted_bytes + sum(self._leaving.values()) > self._limit_bytes:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise ModelNotReadyError(NO_ROOM, retry_after_s=LOADING_RETRY_S)
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(self._leaving, timeout=left_s, return_when=first)

    @property
    def _counted_bytes(self) -> int:
        return sum(one.size_bytes for one in self._counted.values())


def is_held(entry: ModelEntry) -> bool:
    """Say whether a model is lent, or somebody waits for it."""
    return bool(entry.leases or entry.awaiting)
