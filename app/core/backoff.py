"""How long to wait before something that failed is tried again."""

import random
from collections.abc import Callable
from dataclasses import dataclass

MAX_DOUBLINGS = 16  # a server may be down for days, and floats overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses that double up to a longest one.

    Args:
        first_s: the pause after the first failure.
        max_s: the longest pause.
        jitter: share of a pause that is random, so that calls that failed together aren't
            repeated together.
        chance: a number in [0, 1).

    """

    first_s: float
    max_s: float
    jitter: float = 0.0
    chance: Callable[[], float] = random.random

    def pause_s(self, failures: int) -> float:
        """Return the pause after so many failures in a row."""
        doublings = min(max(failures - 1, 0), MAX_DOUBLINGS)
        pause_s = min(self.max_s, self.first_s * float(2**doublings))
        return pause_s * (1 - self.jitter * self.chance())
