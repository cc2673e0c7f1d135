"""When a job is tried again, and after which attempts it has failed."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.core.backoff import Backoff
from app.features.jobs.values import Attempted

BACKOFF = Backoff(first_s=1.0, max_s=60.0, jitter=0.5)


class LeaseLostError(Exception):
    """The job is another worker's now, or cancelled: nothing of this attempt may be stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """Attempts that make progress don't count; too many in a row without any fail the job.

    Args:
        attempts: in a row without progress, after which the job has failed for good.
        backoff: pauses between them.

    """

    attempts: int = 5
    backoff: Backoff = BACKOFF

    def next(self, job: Attempted, now: datetime) -> datetime | None:
        """Return when a job that failed may be tried again; None: never."""
        if job.stalled_attempts >= self.attempts:
            return None
        return now + timedelta(seconds=self.backoff.pause_s(job.stalled_attempts))
