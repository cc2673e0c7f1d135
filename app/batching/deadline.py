"""The point in time after which the answer to a request is too late."""

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point on the clock of `time.monotonic`."""

    at_s: float

    @classmethod
    def after(cls, timeout_s: float) -> "Deadline":
        """Return the deadline in so many seconds from now."""
        return cls(at_s=time.monotonic() + timeout_s)

    @property
    def remaining_s(self) -> float:
        """Seconds that are left; 0 when it has passed."""
        return max(0.0, self.at_s - time.monotonic())
