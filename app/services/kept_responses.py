"""Responses that are kept for a while, so that clients can go on from them."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

# Of one response with all that came before it; a longer conversation isn't kept.
MAX_RECORD_BYTES = 4 << 20
# Why a response isn't kept, or no longer: the label of a metric.
FULL, TOO_LARGE, UNAVAILABLE = "full", "too_large", "unavailable"

OnDropped = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepingBounds:
    """How much is kept.

    Args:
        count: of the responses of one owner; the oldest go.
        seconds: since a response was made.
        bytes_in_memory: of all responses that one process keeps; the oldest go.

    """

    count: int
    seconds: int
    bytes_in_memory: int


class KeptResponses(Protocol):
    """Keeps records of responses by owner and id; nobody sees another owner's."""

    async def put(self, owner: str, response_id: str, record: bytes) -> bool:
        """Keep a record; return whether it is kept. Never raises."""
        ...

    async def get(self, owner: str, response_id: str) -> bytes | None:
        """Return a record; None if it isn't there.

        Raises:
            ResponsesUnavailableError: what keeps it doesn't answer.

        """
        ...

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a record; return whether it was there. Raises as `get`."""
        ...


@dataclass(frozen=True, slots=True)
class _Record:
    content: bytes
    until_s: float


class ResponsesInMemory:
    """Keeps records in this process.

    Args:
        bounds: how much.
        on_dropped: called with the reason for each record that a bound has cost.
        clock: seconds.

    """

    def __init__(
        self,
        bounds: KeepingBounds,
        *,
        on_dropped: OnDropped,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds = bounds
        self._on_dropped = on_dropped
        self._clock = clock
        # The oldest first, in both.
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()
        self._owned: dict[str, OrderedDict[str, None]] = {}
        self._bytes = 0

    async def put(self, owner: str, response_id: str, record: bytes) -> bool:
        """Keep a record; older ones make room."""
        if len(record) > min(MAX_RECORD_BYTES, self._bounds.bytes_in_memory):
            self._on_dropped(TOO_LARGE)
            return False
        self._forget_old()
        until_s = self._clock() + self._bounds.seconds
        self._records[owner, response_id] = _Record(record, until_s)
        self._owned.setdefault(owner, OrderedDict())[response_id] = None
        self._bytes += len(record)
        while len(self._owned[owner]) > self._bounds.count:
            self._drop((owner, next(iter(self._owned[owner]))))
        while self._bytes > self._bounds.bytes_in_memory:
            self._drop(next(iter(self._records)))
        return True

    async def get(self, owner: str, response_id: str) -> bytes | None:
        """Return a record."""
        self._forget_old()
        found = self._records.get((owner, response_id))
        return None if found is None else found.content

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a record."""
        self._forget_old()
        return self._remove((owner, response_id))

    def _forget_old(self) -> None:
        now_s = self._clock()
        while self._records:
            key, record = next(iter(self._records.items()))
            if record.until_s > now_s:
                return
            self._remove(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._on_dropped(FULL)
        self._remove(key)

    def _remove(self, key: tuple[str, str]) -> bool:
        record = self._records.pop(key, None)
        if record is None:
            return False
        owner, response_id = key
        self._bytes -= len(record.content)
        del self._owned[owner][response_id]
        if not self._owned[owner]:
            del self._owned[owner]
        return True


@dataclass(frozen=True, slots=True)
class ResponseKeeper:
    """What keeps this service's responses, for routes to find by its type."""

    responses: KeptResponses
