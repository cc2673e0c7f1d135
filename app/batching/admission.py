"""Whether a request can still be served in time, by a prediction of its wait."""

import math
from dataclasses import dataclass

# Each new observation leaves so much of the older ones' weight: half is gone in about 34 calls.
KEEP = 0.98
# A prediction is a mean, and a text can be overtaken by a dozen batches: with 1.15 a third of what
# was admitted at twice the capacity came too late.
SAFETY = 1.7
# A refusal by an idle engine helps no other request, and the meter learns from each call: only what
# would take twice its deadline is refused there.
IDLE_SAFETY = 0.5
# Each such refusal leaves so much of what was learnt, and below this weight nothing is predicted:
# an engine that stood still once, with its whole process, would be refused for ever else.
DOUBT, KNOWN = 0.8, 0.5


# Not frozen: that takes more than twice the time, and there are ten for each text.
@dataclass(slots=True, kw_only=True)
class Work:
    """The work of texts for an engine."""

    tokens: int
    texts: int

    def __add__(self, other: "Work") -> "Work":
        return Work(tokens=self.tokens + other.tokens, texts=self.texts + other.texts)

    def __sub__(self, other: "Work") -> "Work":
        return Work(tokens=self.tokens - other.tokens, texts=self.texts - other.texts)


NOTHING = Work(tokens=0, texts=0)


class SpeedMeter:
    """Predicts how long work takes: a cost for each call and one for each token, fitted online.

    Least squares of a call's seconds over its tokens, with weights that decay. The two costs are
    kept apart, because a call of one short text says next to nothing about a token's cost.

    Args:
        workers: threads that run calls at the same time.
        max_batch: texts in a call, when there are enough.
        max_batch_tokens: of its texts, where calls are cut by that; None: they aren't.

    """

    def __init__(
        self, *, workers: int, max_batch: int, max_batch_tokens: int | None = None
    ) -> None:
        self._workers = workers
        self._max_batch = max_batch
        self._max_batch_tokens = max_batch_tokens or math.inf
        # Sums over the calls seen: weight, tokens, seconds, tokens², tokens·seconds.
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, *, tokens: int, seconds: float) -> None:
        """Learn from a finished call.

        Args:
            tokens: of its texts, without padding: the queue is counted in those too.
            seconds: from its start to its end.

        """
        keep = KEEP if self._n >= KNOWN else 0.0
        self._n = self._n * keep + 1
        self._x = self._x * keep + tokens
        self._y = self._y * keep + seconds
        self._xx = self._xx * keep + tokens * tokens
        self._xy = self._xy * keep + tokens * seconds

    def doubt(self) -> None:
        """Trust less in what was learnt: it led to a refusal from which nothing is learnt."""
        self._n *= DOUBT
        self._x *= DOUBT
        self._y *= DOUBT
        self._xx *= DOUBT
        self._xy *= DOUBT

    def _costs(self) -> tuple[float, float]:
        """Return seconds per call and per token, neither negative; 0 while nothing is known."""
        if self._n < KNOWN:
            return 0.0, 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        spread = self._xx / self._n - mean_x * mean_x
        # From calls of one size only the sum is known; each cost gets half of it.
        if spread < (0.05 * mean_x) ** 2:
            return mean_y / 2, mean_y / 2 / mean_x
        per_token = (self._xy / self._n - mean_x * mean_y) / spread
        per_token = min(max(per_token, 0.0), mean_y / mean_x)
        return mean_y - per_token * mean_x, per_token

    def drain_s(self, work: Work) -> float:
        """Return the seconds in which all workers together run this."""
        per_call, per_token = self._costs()
        calls = max(work.texts / self._max_batch, work.tokens / self._max_batch_tokens)
        return max(0.0, calls * per_call + work.tokens * per_token) / self._workers

    def predict_s(self, work: Work) -> float:
        """Return the seconds until the answer to the last of this: its own call is not shared."""
        per_call, per_token = self._costs()
        mean_tokens = work.tokens / max(1, work.texts)
        return self.drain_s(work) + per_call + mean_tokens * per_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The decision on a request."""

    is_admitted: bool
    predicted_s: float  # from now until its answer
    retry_after_s: int = 0  # whole seconds after which it would be admitted


class Admission:
    """Refuses at once what can't be answered before its deadline.

    Args:
        meter: how quick the engine is.
        max_queued_tokens: hard bound on what waits, whatever the deadlines say.

    """

    def __init__(self, meter: SpeedMeter, *, max_queued_tokens: int) -> None:
        self._meter = meter
        self._max_queued_tokens = max_queued_tokens

    def judge(self, *, ahead: Work, own: Work, remaining_s: float) -> Verdict:
        """Admit or refuse one request.

        Args:
            ahead: what is queued or running before it.
            own: its own work, estimated.
            remaining_s: seconds until its deadline.

        """
        predicted_s = self._meter.predict_s(ahead + own)
        late_s = predicted_s * (SAFETY if ahead.texts else IDLE_SAFETY) - remaining_s
        # An empty queue takes what fits the deadline, however many tokens: waiting wouldn't help.
        excess = ahead.tokens + own.tokens - self._max_queued_tokens if ahead.texts else 0
        full_s = self._meter.drain_s(Work(tokens=max(0, excess), texts=0))
        if late_s <= 0 and excess <= 0:
            return Verdict(is_admitted=True, predicted_s=predicted_s)
        if not ahead.texts:
            self._meter.doubt()
        # Waiting helps only until all that is ahead is done.
        wait_s = min(max(late_s, full_s), self._meter.drain_s(ahead))
        return Verdict(
            is_admitted=False, predicted_s=predicted_s, retry_after_s=max(1, math.ceil(wait_s))
        )
