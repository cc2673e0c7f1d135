"""Deletes old predictions every so often, a few at a time."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.core.background import beside, regularly
from app.db.session import Database
from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.trimming import trim

log = logging.getLogger(__name__)


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


class Retention:
    """Applies a policy to the log for as long as the process lives.

    Args:
        database: where the log is.
        policy: what is kept.
        metrics: where deleted rows are counted.
        now: the clock.

    """

    def __init__(
        self,
        database: Database,
        *,
        policy: RetentionPolicy,
        metrics: PredictionLogMetrics,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._policy = policy
        self._deleted = metrics.prediction_log_deleted
        self._now = now
        self._is_failing = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Apply the policy during the block; leaving it doesn't wait for a delete to end."""
        if self._policy.keeps_all:
            yield
            return
        async with beside(regularly(self.apply, every_s=self._policy.every_s)):
            yield

    async def apply(self) -> None:
        """Delete what is not to be kept; a failure is logged once, until it works again."""
        age_s = self._policy.age_s
        try:
            before = None if age_s is None else self._now() - timedelta(seconds=age_s)
            deleted = await trim(self._database, before=before, max_rows=self._policy.rows)
        except Exception as failure:  # noqa: BLE001  # the next time may do better, and must come
            if not self._is_failing:
                log.warning("retention_failed", extra={"error": type(failure).__name__})
            self._is_failing = True
            return
        self._is_failing = False
        self._deleted.inc(deleted)
        if deleted:
            log.info("predictions_deleted", extra={"count": deleted})
