"""Webhooks that are due, within one transaction: one process claims and records each."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Table, exists, select, update
from sqlalchemy.orm import Session

from app.features.jobs.leases import as_job
from app.features.jobs.tables import JobRow
from app.features.jobs.values import Job

TABLE: Table = JobRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause


class WebhookStatus(StrEnum):
    """The state of a job's webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """The result of an attempt; `due_at` is when a pending webhook is tried again."""

    status: WebhookStatus
    answer: str
    due_at: datetime | None = None
    delivered_at: datetime | None = None


class WebhookRepository:
    """The webhooks of finished jobs.

    A claim moves `webhook_due_at` to the end of the claim: until then no other process takes the
    webhook, and if this one dies another takes it then. That time is also the claim's token.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def is_due(self, now: datetime) -> bool:
        """Return whether there is one to claim."""
        return bool(self._session.scalar(select(exists(select(TABLE.c.key).where(_due(now))))))

    def claim(self, now: datetime, *, until: datetime, limit: int) -> list[Job]:
        """Claim up to `limit` webhooks that have been due longest; count the attempt."""
        due = select(TABLE.c.key).where(_due(now)).order_by(TABLE.c.webhook_due_at).limit(limit)
        keys = self._session.scalars(due.with_for_update(skip_locked=True)).all()
        claimed = (
            update(TABLE)
            .where(TABLE.c.key.in_(keys))
            .values(webhook_due_at=until, webhook_attempts=TABLE.c.webhook_attempts + 1)
            .returning(TABLE)
        )
        return [as_job(row) for row in self._session.execute(claimed).mappings()]

    def record(self, claimed: Job, attempt: Attempt) -> bool:
        """Store an attempt's result; False when the claim has ended, or the job was retried."""
        recorded = (
            update(TABLE)
            .where(
                TABLE.c.key == claimed.key,
                TABLE.c.webhook_status == WebhookStatus.PENDING,
                TABLE.c.webhook_due_at == claimed.webhook_due_at,
            )
            .values(
                webhook_status=attempt.status,
                webhook_answer=attempt.answer,
                webhook_due_at=attempt.due_at,
                webhook_delivered_at=attempt.delivered_at,
            )
            .returning(TABLE.c.key)
        )
        return self._session.execute(recorded).one_or_none() is not None


def _due(now: datetime) -> ColumnElement[bool]:
    return (TABLE.c.webhook_status == WebhookStatus.PENDING) & (TABLE.c.webhook_due_at <= now)
