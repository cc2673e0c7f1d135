"""How many requests are answered in a second when there is always one that waits."""

# With fewer in flight an engine may have been idle, and the rate says how many came, not how many
# can be answered: two batches of eight run, as on two cores.
SATURATED = 16
# Answers that are waited for before they say anything, since whole batches end at once; and how
# long, since an engine may be stuck.
ENOUGH, ENOUGH_S = 32, 5.0
# Of the mean that a new value replaces in a second. What was reached once can mostly be reached
# again, and where the rate lets requests in, one that fell as quickly as it rises would go on
# falling: fewer would come in, and fewer be answered.
RISE, FALL = 0.75, 0.1


class ServiceRate:
    """A mean over times in which requests were always waiting. It has no clock."""

    def __init__(self) -> None:
        self.per_second: float | None = None  # None: never saturated so far
        self._answered = 0
        self._seconds = 0.0
        self._lowest = 0

    def note(self, in_flight: int) -> None:
        """Note how many are in flight after one has ended."""
        self._lowest = min(self._lowest, in_flight)

    def answered(self) -> None:
        """Count a request that was answered with what it asked for."""
        self._answered += 1

    def learn(self, *, seconds: float, in_flight: int) -> None:
        """End an interval.

        Args:
            seconds: its length.
            in_flight: at its end.

        """
        self._seconds += seconds
        if min(self._lowest, in_flight) < SATURATED:
            self._begin(in_flight)
        elif self._answered >= ENOUGH or self._seconds >= ENOUGH_S:
            self._learn(self._answered / self._seconds)
            self._begin(in_flight)

    def _learn(self, rate: float) -> None:
        if self.per_second is None:
            self.per_second = rate or None
            return
        kept = 1 - (RISE if rate > self.per_second else FALL)
        self.per_second = rate + (self.per_second - rate) * kept**self._seconds

    def _begin(self, in_flight: int) -> None:
        self._answered, self._seconds, self._lowest = 0, 0.0, in_flight
