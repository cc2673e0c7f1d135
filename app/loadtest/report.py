"""The result of a load test: each request's outcome, and the figures made of them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

OK = "200"


class Answer(NamedTuple):
    """The outcome of one request."""

    number: int  # of the request, from 0
    outcome: str  # an HTTP status, or "timeout", "closed", "unconnected", …
    latency_s: float  # open loop: since it was due, whether or not a connection was free
    finished_s: float  # since the start of the loop
    raw: bytes  # head and body; empty unless they were asked for


@dataclass(slots=True, kw_only=True)
class Report:
    """All answers of one loop, and what it cost the client."""

    seconds: float
    counts_late: bool  # whether an answer after the end counts; its request was sent before
    answers: list[Answer] = field(default_factory=list)
    cpu_share: float = 0.0  # of one core, that the client took from the service

    @property
    def outcomes(self) -> Counter[str]:
        """How many requests ended in which way."""
        return Counter(answer.outcome for answer in self.answers)

    @property
    def good(self) -> list[Answer]:
        """Those that were answered with 200 in time."""
        end_s = math.inf if self.counts_late else self.seconds
        return [a for a in self.answers if a.outcome == OK and a.finished_s <= end_s]

    @property
    def per_second(self) -> float:
        """Requests answered with 200 in time, a second."""
        return len(self.good) / self.seconds

    def latency_ms(self, share: float, outcome: str = OK) -> float:
        """Return a percentile of the latency, such as 0.99; not a number where there is none."""
        times = sorted(answer.latency_s for answer in self.answers if answer.outcome == outcome)
        return percentile(times, share) * 1000


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values don't exceed."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
