"""Counters in the memory of one process, bounded in number.

`limits` has a storage in memory too, but after each hit it goes through all its keys, on the
event loop: a flood from many addresses would slow down each request.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from limits.aio.storage import Storage

# At most about 30 MB for each length of window.
MAX_KEYS = 100_000
# More than the one that a hit can add, so that old ones go; few, so that no request is slow.
EVICTED_PER_HIT = 8


@dataclass(slots=True)
class _Count:
    amount: int
    ends_at_s: float


class MemoryStorage(Storage):
    """A storage of `limits` for windows that begin with their first hit.

    Args:
        max_keys: counters for each length of window; beyond it the least recently hit is
            evicted. Windows of different lengths don't evict each other, so a flood of addresses
            doesn't remove a key's tokens of the day.
        clock: seconds since 1970.

    """

    def __init__(self, *, max_keys: int = MAX_KEYS, clock: Callable[[], float] = time.time) -> None:
        super().__init__()
        self._max_keys = max_keys
        self._clock = clock
        # By length of window; in each, the counter that was hit last is at the end.
        self._windows: dict[float, OrderedDict[str, _Count]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._windows.values()))

    @property
    def base_exceptions(self) -> type[Exception]:
        """Return an error type, as the base class requires; none is raised here."""
        return ValueError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count `amount` and return the sum; the first begins a window of `expiry` seconds."""
        now_s = self._clock()
        counts = self._windows.setdefault(expiry, OrderedDict())
        count = counts.get(key)
        if count is None or count.ends_at_s <= now_s:
            count = counts[key] = _Count(0, now_s + expiry)
        count.amount += amount
        counts.move_to_end(key)
        self._evict(counts, now_s)
        return count.amount

    async def get(self, key: str) -> int:
        """Return the sum of a key's window, 0 without one."""
        count = self._find(key)
        return count.amount if count else 0

    async def get_expiry(self, key: str) -> float:
        """Return when the key's window ends, now without one."""
        count = self._find(key)
        return count.ends_at_s if count else self._clock()

    async def clear(self, key: str) -> None:
        """End the key's window."""
        for counts in self._windows.values():
            counts.pop(key, None)

    async def check(self) -> bool:
        """Report success: there is no server."""
        return True

    async def reset(self) -> int:
        """End all windows and return how many there were."""
        number = len(self)
        self._windows.clear()
        return number

    def _find(self, key: str) -> _Count | None:
        for counts in self._windows.values():
            if (count := counts.get(key)) and count.ends_at_s > self._clock():
                return count
        return None

    def _evict(self, counts: OrderedDict[str, _Count], now_s: float) -> None:
        """Remove a few counters, least recently hit first: ended ones, and those beyond the bound.

        The order isn't that of the windows' ends, but a counter without hits for a whole window
        has ended: so none stays for longer than two windows, while there are hits.
        """
        for _ in range(EVICTED_PER_HIT):
            if next(iter(counts.values())).ends_at_s > now_s and len(counts) <= self._max_keys:
                break
            counts.popitem(last=False)
