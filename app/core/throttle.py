"""Limits how often something is logged that may happen thousands of times a second."""

import math
import time
from collections.abc import Callable

LOG_EVERY_S = 60.0  # between two lines of the same kind


class Throttle:
    """Lets something through at most once in an interval, for each key; not safe across threads.

    Args:
        every_s: the interval.
        clock: monotonic seconds.

    """

    def __init__(
        self, every_s: float = LOG_EVERY_S, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every_s = every_s
        self._clock = clock
        self._begun_s: dict[str, float] = {}

    def passes(self, key: str = "") -> bool:
        """Say whether it is time; if so, an interval begins."""
        if self._clock() < self._begun_s.get(key, -math.inf) + self._every_s:
            return False
        self.restart(key)
        return True

    def restart(self, key: str = "") -> None:
        """Begin an interval now, as if something had passed."""
        self._begun_s[key] = self._clock()
