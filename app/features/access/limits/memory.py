"""Counters of one process, bounded in number.

`limits` has a storage in memory too, but it looks at every key it holds after each hit: under a
flood from many addresses each request pays for all of them, on the event loop.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from limits.aio.storage import Storage

# About 30 MB for each length of window at the worst, which takes as many callers within one.
MAX_KEYS = 100_000
# More than the one that a hit can add, and few enough that no request pays for a past flood.
FORGOTTEN_PER_HIT = 8


@dataclass(slots=True)
class _Count:
    amount: int
    ends_at_s: float


class MemoryStorage(Storage):
    """A storage of `limits` for windows that begin with their first hit.

    Args:
        max_keys: counters for each length of window; with more, the one that was not hit for
            longest is forgotten. Windows of different lengths don't push each other out, so a
            flood of addresses leaves the day's tokens of a key alone.
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
        """Nothing can fail here."""
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
        self._forget(counts, now_s)
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
        """Say that it works."""
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

    def _forget(self, counts: OrderedDict[str, _Count], now_s: float) -> None:
        """Drop a few that are over, oldest hit first, and what is too much.

        A counter that was last hit a window ago is over: nothing lasts for two windows, while
        there are hits.
        """
        for _ in range(FORGOTTEN_PER_HIT):
            if next(iter(counts.values())).ends_at_s > now_s and len(counts) <= self._max_keys:
                break
            counts.popitem(last=False)
