"""When a job is tried again, and when no more."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.features.jobs.values import Job

MAX_DOUBLINGS = 16  # of the pause; floats end somewhere


class LeaseLostError(Exception):
    """The job is another worker's now, or cancelled: nothing of this attempt may be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Attempts that get something done go on for ever; so many in a row that don't are enough.

    Args:
        attempts: in a row without progress, after which the job has failed for good.
        base_s: pause after the first of them; doubled with each.
        max_s: longest pause.
        jitter: share of a pause that is left to chance, so that jobs which failed together don't
            come back together.
        chance: a number in [0, 1).

    """

    attempts: int = 5
    base_s: float = 1.0
    max_s: float = 60.0
    jitter: float = 0.5
    chance: Callable[[], float] = random.random

    def next(self, job: Job, now: datetime) -> datetime | None:
        """Return when a job that failed may be tried again; None: never."""
        if job.barren >= self.attempts:
            return None
        doublings = min(max(job.barren - 1, 0), MAX_DOUBLINGS)
        pause_s = min(self.max_s, self.base_s * 2**doublings)
        return now + timedelta(seconds=pause_s * (1 - self.jitter * self.chance()))
