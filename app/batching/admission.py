"""Whether a request can still be served in time: the wait is predicted, not guessed by length."""

import math
from dataclasses import dataclass

# Weight of the newest call in the running mean of speed; forgets in about 20 calls.
MEAN_WEIGHT = 0.1
# Before the first call, as slow as a small model on a small core; warming measures the real one.
INITIAL_S_PER_TOKEN = 0.001
# A prediction is a mean; this much of the time that is left is kept for what it misses.
SAFETY = 1.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What admission says to a request."""

    is_admitted: bool
    predicted_s: float  # from now until its answer
    retry_after_s: int = 0  # whole seconds after which the same request would be admitted


class SpeedMeter:
    """Predicts how long queued tokens take, from how long the last calls took.

    Two running means, as the calls saw them with their neighbours running on other cores: seconds
    per token, for what stands ahead, and seconds per call, for the call that the answer is in.

    Args:
        workers: threads that run calls at the same time.

    """

    def __init__(self, *, workers: int) -> None:
        self._workers = workers
        self._s_per_token = INITIAL_S_PER_TOKEN
        self._s_per_call = 0.0
        self._is_measured = False

    def observe(self, *, tokens: int, seconds: float) -> None:
        """Learn from a finished call.

        Args:
            tokens: of its texts, without padding: the queue is counted in those too.
            seconds: from its start to its end.

        """
        found = seconds / max(1, tokens)
        weight = MEAN_WEIGHT if self._is_measured else 1.0
        self._is_measured = True
        self._s_per_token += weight * (found - self._s_per_token)
        self._s_per_call += weight * (seconds - self._s_per_call)

    def drain_s(self, tokens: int) -> float:
        """Return the seconds in which all workers together run so many tokens."""
        return tokens / self._workers * self._s_per_token

    def predict_s(self, tokens: int) -> float:
        """Return the seconds until the answer to the last of so many tokens."""
        return self.drain_s(tokens) + self._s_per_call


class Admission:
    """Decides at the door: what can't be answered before its deadline is refused at once.

    Args:
        meter: how quick the engine is.
        max_queued_tokens: hard bound on what waits, whatever the deadlines say.

    """

    def __init__(self, meter: SpeedMeter, *, max_queued_tokens: int) -> None:
        self._meter = meter
        self._max_queued_tokens = max_queued_tokens

    def judge(self, *, ahead: int, own: int, remaining_s: float) -> Verdict:
        """Judge one request.

        Args:
            ahead: tokens that are queued or running before it.
            own: its own tokens, estimated.
            remaining_s: seconds until its deadline.

        """
        predicted_s = self._meter.predict_s(ahead + own)
        late_s = predicted_s * SAFETY - remaining_s
        # An empty queue takes whatever fits the deadline: it would never be emptier.
        excess = ahead + own - self._max_queued_tokens if ahead else 0
        wait_s = max(late_s, self._meter.drain_s(excess))
        if wait_s <= 0:
            return Verdict(is_admitted=True, predicted_s=predicted_s)
        return Verdict(
            is_admitted=False, predicted_s=predicted_s, retry_after_s=max(1, math.ceil(wait_s))
        )
