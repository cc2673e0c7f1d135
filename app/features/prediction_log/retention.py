"""Deletes predictions beyond an age, and the oldest beyond a number."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from app.db.retention import Retention
from app.db.session import Database
from app.features.prediction_log.filters import Position
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.repository import PredictionRepository

DELETE_ROWS = 1000
# Counting half a million index entries takes 0.1 s; a log may be a hundred times as large.
COUNT_TIMEOUT_S = 30.0
utc_now = partial(datetime.now, UTC)


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
    """Return the retention of the log, which counts deleted rows."""

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


async def trim(
    database: Database,
    *,
    before: datetime | None = None,
    max_rows: int | None = None,
    limit: int = DELETE_ROWS,
) -> AsyncIterator[int]:
    """Delete what is older than a time, and the oldest beyond a number of rows.

    Yields the number of rows of each transaction.

    Raises:
        DatabaseUnavailableError: rows deleted before that stay deleted.

    """
    if before is not None:
        delete = partial(_delete, position=Position(before, -1), limit=limit)
        while count := await database.run(delete):
            yield count
    if max_rows is not None:
        oldest = partial(_nth_newest, number=max_rows)
        if first := await database.read(oldest, timeout_s=COUNT_TIMEOUT_S):
            delete = partial(_delete, position=first, limit=limit)
            while count := await database.run(delete):
                yield count


def _nth_newest(session: Session, *, number: int) -> Position | None:
    return PredictionRepository(session).nth_newest(number)


def _delete(session: Session, *, position: Position, limit: int) -> int:
    return PredictionRepository(session).delete_from(position, limit=limit)
