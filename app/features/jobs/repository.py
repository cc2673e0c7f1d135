"""Jobs as they are stored: queries of their owners and of the supervisor."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, case, delete, func, null, select, true, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.clock import now
from app.features.jobs.items import JobItems
from app.features.jobs.leases import NO_LEASE, TABLE, as_job, change, changed
from app.features.jobs.values import FINAL, OPEN, Job, JobStatus, NewJob, Waiting

# The first number of advisory locks; any that no other program on the server uses.
LOCKS = 60_137


class JobRepository:
    """The jobs, within one transaction. Times are those of the database's clock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._items = JobItems(session)
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"

    # For their owners

    def add(self, new: NewJob, document_keys: Sequence[int] = ()) -> Job | None:
        """Store a job, queued; None when its owner has used its idempotency key before.

        On both databases that waits for a transaction that adds the same key.
        """
        moment = now(self._session)
        values = {name: getattr(new, name) for name in NewJob.__dataclass_fields__}
        started = {
            "status": JobStatus.QUEUED,
            **dict.fromkeys(("done", "failed", "attempts", "stalled_attempts", "lease_done"), 0),
            **dict.fromkeys(("created_at", "updated_at", "due_at"), moment),
            "total": 0,
            "run_seconds": 0.0,
            "is_announced": False,
            "webhook_attempts": 0,
        }
        dialect = sqlite if self._is_sqlite else postgresql
        added = (
            dialect.insert(TABLE)
            .values(values | started)
            .on_conflict_do_nothing(index_elements=["collection", "idempotency_key"])
            .returning(TABLE)
        )
        row = self._session.execute(added).mappings().one_or_none()
        return None if row is None else self.fill(as_job(row), document_keys)

    def fill(self, job: Job, document_keys: Sequence[int]) -> Job:
        """Give a new job its documents, in this transaction; duplicates are dropped."""
        keys = list(dict.fromkeys(document_keys))
        self._items.add(job.key, keys)
        self._session.execute(change(job.key, total=len(keys)))
        return replace(job, total=len(keys))

    def by_id(self, job_id: str, *, collection: int | None) -> Job | None:
        """Return a job of a collection, or of any when that is None."""
        return self._one(TABLE.c.id == job_id, _of(collection))

    def by_idempotency_key(self, collection: int, key: str) -> Job | None:
        """Return the job that was submitted with a key."""
        return self._one(TABLE.c.idempotency_key == key, _of(collection))

    def lock_collection(self, collection: int) -> None:
        """Lock a collection until the end of the transaction, for counting its jobs.

        SQLite's transactions that write never overlap, so they need no lock.
        """
        if not self._is_sqlite:
            lock = func.pg_advisory_xact_lock(LOCKS, collection % 2**31)
            self._session.execute(select(lock))

    def count_open(self, collection: int) -> int:
        """Return how many jobs of a collection aren't finished."""
        mine = (TABLE.c.collection == collection) & TABLE.c.status.in_(OPEN)
        return self._session.scalar(select(func.count()).where(mine)) or 0

    def page(
        self,
        *,
        collection: int | None,
        status: JobStatus | None = None,
        before_key: int | None = None,
        limit: int,
    ) -> list[Job]:
        """Return jobs, newest first; `before_key` is the last one of the page before."""
        page = select(TABLE).where(_of(collection)).order_by(TABLE.c.key.desc()).limit(limit)
        if status is not None:
            page = page.where(TABLE.c.status == status)
        if before_key is not None:
            page = page.where(TABLE.c.key < before_key)
        return [as_job(row) for row in self._session.execute(page).mappings()]

    def cancel(self, key: int) -> Job | None:
        """End a job that isn't finished; None when it is. Its worker's next commit fails."""
        moment = now(self._session)
        cancelled = change(
            key,
            status=JobStatus.CANCELLED,
            finished_at=moment,
            updated_at=moment,
            error_code=None,
            error=None,
            **NO_LEASE,
        )
        return changed(self._session, cancelled.where(TABLE.c.status.in_(OPEN)))

    def retry(self, key: int) -> Job | None:
        """Queue a failed job again, with its failed documents; None when it hasn't failed."""
        moment = now(self._session)
        again = change(
            key,
            status=JobStatus.QUEUED,
            failed=0,
            stalled_attempts=0,
            due_at=moment,
            updated_at=moment,
            finished_at=None,
            error_code=None,
            error=None,
            result=null(),
            is_announced=False,
            webhook_status=None,
            webhook_attempts=0,
            webhook_due_at=None,
            webhook_answer=None,
            webhook_delivered_at=None,
        )
        job = changed(self._session, again.where(TABLE.c.status == JobStatus.FAILED))
        if job is not None:
            self._items.wait_again(key)
        return job

    # For the supervisor

    def waiting(self) -> Waiting:
        """Return how many jobs wait for a worker, and for how long."""
        moment = now(self._session)
        due, later = TABLE.c.due_at <= moment, TABLE.c.due_at > moment
        counted = select(
            func.count(),
            func.count().filter(due),
            func.min(TABLE.c.due_at).filter(due),
            func.min(TABLE.c.due_at).filter(later),
        ).where(TABLE.c.status == JobStatus.QUEUED)
        queued, ready, oldest, next_due = self._session.execute(counted).one()
        return Waiting(
            queued=queued,
            due=ready,
            oldest_s=(moment - oldest).total_seconds() if oldest else 0.0,
            next_due_s=(next_due - moment).total_seconds() if next_due else None,
        )

    def take_finished(self, limit: int) -> list[Job]:
        """Return finished jobs not reported yet, each to one caller; their webhooks become due."""
        unreported = TABLE.c.is_announced.is_(False) & TABLE.c.status.in_(FINAL)
        first = select(TABLE.c.key).where(unreported).limit(limit)
        keys = self._session.scalars(first.with_for_update(skip_locked=True)).all()
        has_webhook = TABLE.c.webhook_url.is_not(None)
        reported = (
            update(TABLE)
            .where(TABLE.c.key.in_(keys))
            .values(
                is_announced=True,
                webhook_status=case((has_webhook, "pending")),
                webhook_due_at=case((has_webhook, now(self._session))),
            )
            .returning(TABLE)
        )
        return [as_job(row) for row in self._session.execute(reported).mappings()] if keys else []

    def delete_finished(self, *, age_s: float, limit: int) -> int:
        """Delete jobs that finished so long ago, the oldest first; return how many."""
        before = now(self._session) - timedelta(seconds=age_s)
        old = TABLE.c.status.in_(FINAL) & (TABLE.c.finished_at < before)
        oldest = select(TABLE.c.key).where(old).order_by(TABLE.c.key).limit(limit)
        deletion = delete(TABLE).where(TABLE.c.key.in_(self._session.scalars(oldest).all()))
        return cast("CursorResult[Any]", self._session.execute(deletion)).rowcount

    def _one(self, *conditions: ColumnElement[bool]) -> Job | None:
        row = self._session.execute(select(TABLE).where(*conditions)).mappings().one_or_none()
        return as_job(row) if row else None


def _of(collection: int | None) -> ColumnElement[bool]:
    return true() if collection is None else TABLE.c.collection == collection
