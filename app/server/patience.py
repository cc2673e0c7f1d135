"""For how long clients wait for an answer, as far as those tell that leave without one."""

from collections import deque

# A client is taken to wait for half a second at least: some close a page at once, and that says
# nothing about the others.
LEAST_S = 0.5
# Fewer are the accidents of any service: 1 in 10 of those that ended, and not only once or twice.
NOTICEABLE_SHARE, NOTICEABLE = 0.1, 4
# Of what was counted in earlier intervals: half is gone in three.
KEEP = 0.8
# The ages that are remembered; of those a low one is taken, as most should be answered.
AGES, QUANTILE = 128, 0.1
# When clients go on leaving, the wait is longer than was thought.
CUT = 0.85
# A second: slowly while requests are refused because of it, or clients would leave again every few
# seconds; and back to the start in about a minute when none is.
GROWTH_REFUSING, GROWTH = 1.01, 1.1


class Patience:
    """Learns the age at which clients leave, or the deadlines of their requests pass.

    It has no clock: callers pass ages, and the seconds between two calls of `learn`.

    Args:
        most_s: where it starts, and where it grows back to: the service's own deadline.

    """

    def __init__(self, most_s: float) -> None:
        self.seconds = most_s
        self._most_s = most_s
        self._ages: deque[float] = deque(maxlen=AGES)
        self._left = self._answered = 0.0
        self._pause_s = 0.0  # until what was changed last shows

    def left(self, age_s: float) -> None:
        """One client left, or its deadline passed, so long after its request."""
        self._ages.append(age_s)
        self._left += 1

    def answered(self) -> None:
        """One request was answered."""
        self._answered += 1

    def learn(self, *, seconds: float, is_refusing: bool) -> None:
        """End an interval.

        Args:
            seconds: its length.
            is_refusing: whether requests were refused in it, as they would have waited too long.

        """
        self._pause_s -= seconds
        share = self._left / max(1.0, self._left + self._answered)
        if self._left >= NOTICEABLE and share >= NOTICEABLE_SHARE:
            self._lower()
        elif not self._ages:
            growth = GROWTH_REFUSING if is_refusing else GROWTH
            self.seconds = min(self._most_s, self.seconds * growth**seconds)
        self._left *= KEEP
        self._answered *= KEEP
        if self._left < 1:
            self._ages.clear()

    def _lower(self) -> None:
        age_s = sorted(self._ages)[int(len(self._ages) * QUANTILE)]
        if age_s < self.seconds:
            lowered_s = age_s
        elif self._pause_s <= 0:
            lowered_s = self.seconds * CUT
        else:
            return
        self.seconds = max(min(LEAST_S, self._most_s), lowered_s)
        # Those that are in flight now were let in before.
        self._pause_s = self.seconds
        self._left = self._answered = 0.0
        self._ages.clear()
