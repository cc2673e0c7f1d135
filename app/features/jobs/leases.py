"""Jobs as their workers see them: claimed by a lease, recorded and ended while it holds."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, Update, case, func, select, update
from sqlalchemy.orm import Session

from app.db.clock import now
from app.features.jobs.items import JobItems, storable
from app.features.jobs.tables import JobRow
from app.features.jobs.turns import lock_next
from app.features.jobs.values import AttemptPolicy, Item, ItemOutcome, ItemState, Job, JobStatus

TABLE: Table = JobRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause
DOCUMENTS_FAILED = "documents_failed"
WORKER_LOST = "worker_lost"
WORKER_LOST_DETAIL = "The worker fell silent."
NO_LEASE: dict[str, Any] = {"lease": None, "lease_until": None}


class JobLeases:
    """The leases on jobs, within one transaction. Times are those of the database's clock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._items = JobItems(session)

    def claim(self, *, lease: str, lease_s: float) -> Job | None:
        """Claim the next job; None when no unclaimed one is due.

        Collections take turns, so that many jobs of one don't hold up another's: the next job is
        the one that has waited longest in the collection that was served longest ago.
        """
        moment = now(self._session)
        is_due = (TABLE.c.status == JobStatus.QUEUED) & (TABLE.c.due_at <= moment)
        key = lock_next(self._session, TABLE, is_due)
        if key is None:
            return None
        claimed = change(
            key,
            status=JobStatus.RUNNING,
            lease=lease,
            lease_until=moment + timedelta(seconds=lease_s),
            lease_done=TABLE.c.done + TABLE.c.failed,
            attempts=TABLE.c.attempts + 1,
            started_at=func.coalesce(TABLE.c.started_at, moment),
            claimed_at=moment,
            updated_at=moment,
        )
        return changed(self._session, claimed)

    def extend(self, key: int, *, lease: str, lease_s: float) -> bool:
        """Extend the lease; False when the job was given away or cancelled."""
        until = now(self._session) + timedelta(seconds=lease_s)
        extended = change(key, lease_until=until).where(_held(lease))
        return changed(self._session, extended) is not None

    def items(self, key: int, *, after: int = -1, limit: int) -> list[Item]:
        """Return documents that wait and come after an ordinal, in order."""
        return self._items.waiting(key, after=after, limit=limit)

    def record(self, key: int, *, lease: str, outcomes: Sequence[ItemOutcome]) -> bool:
        """Store outcomes of documents, and the time since the last record or the claim.

        A document that was recorded before is left as it is, and isn't counted again. False when
        the lease is lost: then nothing else of the transaction may be stored either, so raise
        `LeaseLostError`.
        """
        job = self._lock(key, lease)
        if job is None:
            return False
        counts = self._items.mark(key, outcomes)
        moment = now(self._session)
        recorded = change(
            key,
            done=TABLE.c.done + counts[ItemState.DONE] + counts[ItemState.SKIPPED],
            failed=TABLE.c.failed + counts[ItemState.FAILED],
            run_seconds=TABLE.c.run_seconds + (moment - job.updated_at).total_seconds(),
            updated_at=moment,
        )
        self._session.execute(recorded)
        return True

    def release(self, key: int, *, lease: str) -> bool:
        """Put a job back before it is finished; that doesn't count as an attempt."""
        moment = now(self._session)
        has_progressed = TABLE.c.done + TABLE.c.failed > TABLE.c.lease_done
        released = change(
            key,
            status=JobStatus.QUEUED,
            due_at=moment,
            updated_at=moment,
            attempts=TABLE.c.attempts - 1,
            stalled_attempts=case((has_progressed, 0), else_=TABLE.c.stalled_attempts),
            # The job works again: its last error is out of date.
            error_code=case((has_progressed, None), else_=TABLE.c.error_code),
            error=case((has_progressed, None), else_=TABLE.c.error),
            **NO_LEASE,
        )
        return changed(self._session, released.where(_held(lease))) is not None

    def finish(self, key: int, *, lease: str) -> bool:
        """End a job whose documents are all done: failed when some of them failed."""
        job = self._lock(key, lease)
        if job is None:
            return False
        if job.failed:
            error = f"{job.failed} of {job.total} documents failed; `result` names them."
            self._fail(job, code=DOCUMENTS_FAILED, error=error)
        else:
            self._end(key, status=JobStatus.SUCCEEDED, error_code=None, error=None)
        return True

    def fail_attempt(
        self, key: int, *, lease: str, code: str, detail: str, policy: AttemptPolicy
    ) -> None:
        """End a failed attempt; the policy decides when the job is tried again, if ever."""
        job = self._lock(key, lease)
        if job is not None:
            self._end_attempt(job, code=code, detail=detail, policy=policy)

    def reap(self, *, policy: AttemptPolicy, limit: int) -> list[Job]:
        """End attempts whose lease has run out; return their jobs as they are now."""
        is_lost = (TABLE.c.status == JobStatus.RUNNING) & (TABLE.c.lease_until < now(self._session))
        lost = select(TABLE).where(is_lost).limit(limit).with_for_update(skip_locked=True)
        jobs = [as_job(row) for row in self._session.execute(lost).mappings()]
        return [
            self._end_attempt(job, code=WORKER_LOST, detail=WORKER_LOST_DETAIL, policy=policy)
            for job in jobs
        ]

    def _lock(self, key: int, lease: str) -> Job | None:
        """Lock a job until the commit and return it; None when the lease on it is lost."""
        held = select(TABLE).where(TABLE.c.key == key, _held(lease)).with_for_update()
        row = self._session.execute(held).mappings().one_or_none()
        return as_job(row) if row else None

    def _end_attempt(self, job: Job, *, code: str, detail: str, policy: AttemptPolicy) -> Job:
        """End an attempt of a job that is locked."""
        moment = now(self._session)
        job = replace(job, stalled_attempts=0 if job.has_progressed else job.stalled_attempts + 1)
        due_at = policy.next(job, moment)
        if due_at is None:
            error = f"{storable(detail)} {job.stalled_attempts} attempts in a row got nothing done."
            return self._fail(job, code=code, error=error)
        queued = change(
            job.key,
            status=JobStatus.QUEUED,
            stalled_attempts=job.stalled_attempts,
            due_at=due_at,
            updated_at=moment,
            error_code=code,
            error=storable(detail),
            **NO_LEASE,
        )
        return as_job(self._session.execute(queued.returning(TABLE)).mappings().one())

    def _fail(self, job: Job, *, code: str, error: str) -> Job:
        failure = {"error_code": code, "error": error, "stalled_attempts": job.stalled_attempts}
        return self._end(job.key, status=JobStatus.FAILED, **failure)

    def _end(self, key: int, **values: object) -> Job:
        moment = now(self._session)
        result = self._items.result(key)
        ended = change(
            key, result=result, finished_at=moment, updated_at=moment, **NO_LEASE, **values
        )
        return as_job(self._session.execute(ended.returning(TABLE)).mappings().one())


def as_job(row: Any) -> Job:  # noqa: ANN401 -- a mapping of columns
    """Return a row as a value; its keys are the columns' names in SQL."""
    values = {column.key: row[column.name] for column in TABLE.columns}
    return Job(**{**values, "status": JobStatus(values["status"])})


def change(key: int, **values: object) -> Update:
    """Return a statement that changes a job."""
    return update(TABLE).where(TABLE.c.key == key).values(values)


def changed(session: Session, statement: Update) -> Job | None:
    """Run a statement that changes one job; return the job after it, None when no row matched."""
    row = session.execute(statement.returning(TABLE)).mappings().one_or_none()
    return as_job(row) if row else None


def _held(lease: str) -> ColumnElement[bool]:
    return (TABLE.c.lease == lease) & (TABLE.c.status == JobStatus.RUNNING)
