"""Whether the database is available, by the results of its calls, for the log and /ready."""

import logging
import math
import threading
import time
from collections.abc import Callable

from app.core.throttle import Throttle

log = logging.getLogger(__name__)

# A full disk still takes writes that fit into existing pages: one that succeeds doesn't mean that
# there is space.
HOLD_S = 10.0
FULL, DAMAGED = "disk_full", "damaged"


class Availability:
    """Whether the database answers, accepts writes and is undamaged; safe in any thread.

    Reading may go on while nothing can be written: an outage of writes isn't over until a write
    succeeds. Damage doesn't go away by itself: it stays until the process ends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.is_answering = True
        self._clock = clock
        self._lock = threading.Lock()
        self._failing: dict[bool, str] = {}  # by whether it is about reading: the reason
        self._damage: str | None = None
        self._full_at_s = -math.inf
        self._throttle = Throttle(clock=clock)  # by reason

    def failed(self, reason: str, error: str, *, is_read: bool) -> None:
        """Note a call that failed, and log it: at once when it is new, else now and then."""
        with self._lock:
            self.is_answering = False
            is_new = reason not in self._failing.values() and reason != DAMAGED
            self._failing[is_read] = reason
            if reason == DAMAGED:
                self._damage = error
            if reason == FULL:
                self._full_at_s = self._clock()
            self._log_failure(reason, error, is_new=is_new)

    def answered(self, *, is_read: bool) -> None:
        """Note a call that succeeded."""
        with self._lock:
            self.is_answering = True
            if not self._failing or (not is_read and self._is_full()):
                return
            self._failing.pop(is_read, None)
            if not is_read:  # if it can write, it can read
                self._failing.clear()
            if not self._failing and self._damage is None:
                log.info("database_available")

    def problem(self) -> str | None:
        """Return a problem that a successful small write doesn't end, or None."""
        with self._lock:
            if self._damage is not None:
                self._log_failure(DAMAGED, self._damage, is_new=False)
                return DAMAGED
            return FULL if self._is_full() else None

    def _is_full(self) -> bool:
        return self._clock() < self._full_at_s + HOLD_S

    def _log_failure(self, reason: str, error: str, *, is_new: bool) -> None:
        if is_new:
            self._throttle.restart(reason)
        elif not self._throttle.passes(reason):
            return
        level = logging.ERROR if reason == DAMAGED else logging.WARNING
        log.log(level, "database_unavailable", extra={"reason": reason, "error": error})
