"""Whether a version on trial does worse than it may, by the answers of the last minute."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.models.rollback_rule import RollbackRule

SERVER_ERROR = 500
# Of one version; with more in a window the oldest go.
MOST_ANSWERS = 5_000
PERCENT = 95
# A version is only to blame where the other one fails much less.
TIMES_WORSE = 2


@dataclass(frozen=True, slots=True)
class Answer:
    """What is remembered of an answer: when it was made, as `time.monotonic` counts, and how."""

    at_s: float
    is_failed: bool
    latency_ms: float
    label: str | None


@dataclass(slots=True)
class Window:
    """The latest answers of one version."""

    answers: deque[Answer] = field(default_factory=lambda: deque(maxlen=MOST_ANSWERS))

    def since(self, at_s: float) -> Sequence[Answer]:
        """Return the answers from then on, and forget those before."""
        while self.answers and self.answers[0].at_s < at_s:
            self.answers.popleft()
        return tuple(self.answers)


def judge(rule: RollbackRule, tried: Sequence[Answer], other: Sequence[Answer]) -> str | None:
    """Return in words which bound a version is over; None: none, or too little is known.

    Args:
        rule: the bounds.
        tried: answers of the version on trial.
        other: of the one that serves, or served before.

    """
    if len(tried) < rule.min_requests:
        return None
    failing, usual = _failed(tried), _failed(other) if other else 0.0
    if rule.errors is not None and failing > rule.errors and failing > TIMES_WORSE * usual:
        return f"errors {failing:.3f} > {rule.errors}"
    if len(other) < rule.min_requests:
        return None
    slow, usually = _slowest(tried), _slowest(other)
    if rule.latency_ratio is not None and usually and slow > rule.latency_ratio * usually:
        return f"latency_ratio {slow / usually:.2f} > {rule.latency_ratio}"
    apart = _apart(tried, other)
    if rule.disagreement is not None and apart > rule.disagreement:
        return f"disagreement {apart:.3f} > {rule.disagreement}"
    return None


def _failed(answers: Sequence[Answer]) -> float:
    return sum(one.is_failed for one in answers) / len(answers)


def _slowest(answers: Sequence[Answer]) -> float:
    """Return the 95th percentile of the answers that didn't fail; 0 where all did."""
    times = sorted(one.latency_ms for one in answers if not one.is_failed)
    return times[len(times) * PERCENT // 100] if times else 0.0


def _apart(tried: Sequence[Answer], other: Sequence[Answer]) -> float:
    """Return half the sum of the differences of the labels' shares; 0 where there are none."""
    mine = Counter(one.label for one in tried if one.label is not None)
    theirs = Counter(one.label for one in other if one.label is not None)
    if not mine or not theirs:
        return 0.0
    shares = (mine[x] / mine.total() - theirs[x] / theirs.total() for x in {*mine, *theirs})
    return sum(map(abs, shares)) / 2
