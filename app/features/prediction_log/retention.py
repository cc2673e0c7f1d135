"""Which predictions are deleted: those beyond an age, and the oldest beyond a number."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.db.retention import Retention
from app.db.session import Database
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.trimming import trim


def utc_now() -> datetime:
    """Return the time, with its zone."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPolicy:
    """What is kept; None keeps all.

    Args:
        age_s: older rows are deleted.
        rows: the oldest beyond so many are deleted.
        every_s: how often.

    """

    age_s: int | None = None
    rows: int | None = None
    every_s: float = 60.0

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever deleted."""
        return self.age_s is None and self.rows is None


def prediction_retention(
    database: Database,
    *,
    policy: RetentionPolicy,
    metrics: PredictionLogMetrics,
    now: Callable[[], datetime] = utc_now,
) -> Retention:
    """Return what applies a policy to the log, and counts deleted rows."""

    async def delete() -> AsyncIterator[int]:
        before = None if policy.age_s is None else now() - timedelta(seconds=policy.age_s)
        async for count in trim(database, before=before, max_rows=policy.rows):
            metrics.prediction_log_deleted.inc(count)
            yield count

    return Retention(
        delete,
        every_s=policy.every_s,
        failed_event="retention_failed",
        deleted_event="predictions_deleted",
    )
