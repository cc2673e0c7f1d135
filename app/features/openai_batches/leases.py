"""Batches as the processes that run them see them: claimed by a lease, written while it holds."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Table, Update, exists, select, update
from sqlalchemy.orm import Session

from app.db.clock import now
from app.features.jobs.turns import lock_next
from app.features.jobs.values import AttemptPolicy
from app.features.openai_batches.files import FileRepository, new_file_id
from app.features.openai_batches.tables import BatchRow
from app.features.openai_batches.values import (
    Batch,
    BatchStatus,
    LineAnswer,
    LineError,
    Purpose,
)

TABLE: Table = BatchRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause
NO_PROGRESS = -1  # before any line


class BatchLeases:
    """The leases on batches, within one transaction. Times are those of the database's clock.

    A batch that a process has is due again when its lease ends; so whoever claims it then takes it
    from a process that has died.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._files = FileRepository(session)

    def is_due(self) -> bool:
        """Say whether there is one to claim."""
        due = select(TABLE.c.key).where(_due(now(self._session)))
        return bool(self._session.scalar(select(exists(due))))

    def claim(self, *, lease: str, lease_s: float) -> Batch | None:
        """Claim the next batch; None when none is due. Collections take turns, as with jobs."""
        moment = now(self._session)
        key = lock_next(self._session, TABLE, _due(moment))
        if key is None:
            return None
        before = self._session.execute(select(TABLE).where(TABLE.c.key == key)).mappings().one()
        batch = as_batch(before)
        stalled = batch.stalled_attempts
        if batch.lease is not None:  # the last turn wasn't ended: its process has died
            stalled = 0 if batch.offset > batch.lease_offset else stalled + 1
        claimed = change(
            key,
            lease=lease,
            due_at=moment + timedelta(seconds=lease_s),
            lease_offset=batch.offset,
            attempts=batch.attempts + 1,
            stalled_attempts=stalled,
            claimed_at=moment,
            updated_at=moment,
        )
        return changed(self._session, claimed)

    def extend(self, key: int, *, lease: str, lease_s: float) -> Batch | None:
        """Extend the lease, and return the batch as it is; None when the lease is lost."""
        until = now(self._session) + timedelta(seconds=lease_s)
        return changed(self._session, _held(change(key, due_at=until), lease))

    def begin(self, key: int, *, lease: str, total: int) -> Batch | None:
        """Let a checked batch run; None when the lease is lost."""
        batch = self._lock(key, lease)
        if batch is None:
            return None
        moment = now(self._session)
        begun = change(
            key,
            status=BatchStatus.CANCELLING if batch.is_cancelled else BatchStatus.IN_PROGRESS,
            total=total,
            in_progress_at=moment,
            updated_at=moment,
            lease_offset=NO_PROGRESS,
        )
        return changed(self._session, begun)

    def write(
        self, key: int, *, lease: str, after: int, answers: Sequence[LineAnswer]
    ) -> Batch | None:
        """Write answers of the next lines, and that these are done.

        None when the lease is lost, or other lines are next than those after this offset.
        """
        batch = self._lock(key, lease)
        if batch is None or batch.offset != after:
            return None
        good = b"".join(answer.text for answer in answers if answer.is_good)
        bad = b"".join(answer.text for answer in answers if not answer.is_good)
        done = sum(answer.is_good for answer in answers)
        written = change(
            key,
            completed=TABLE.c.completed + done,
            failed=TABLE.c.failed + len(answers) - done,
            offset=answers[-1].end,
            output_bytes=TABLE.c.output_bytes + len(good) + len(bad),
            updated_at=now(self._session),
            **self._append(batch, "output", good),
            **self._append(batch, "error", bad),
        )
        return changed(self._session, written)

    def finalize(self, key: int, *, lease: str) -> Batch | None:
        """Note that all lines are answered; None when the lease is lost."""
        moment = now(self._session)
        batch = self._lock(key, lease)
        if batch is None:
            return None
        status = BatchStatus.CANCELLING if batch.is_cancelled else BatchStatus.FINALIZING
        return changed(
            self._session, change(key, status=status, finalizing_at=moment, updated_at=moment)
        )

    def end(
        self,
        key: int,
        *,
        lease: str,
        status: BatchStatus,
        file_s: int | None,
        errors: Sequence[LineError] = (),
    ) -> Batch | None:
        """End a batch; its files can be read from now on. None when the lease is lost.

        Args:
            key: of the batch.
            lease: on it.
            status: a final one.
            file_s: seconds after which its files are deleted; None: never.
            errors: why it failed.

        """
        batch = self._lock(key, lease)
        if batch is None:
            return None
        return self._end(batch, status=status, file_s=file_s, errors=errors)

    def release(self, key: int, *, lease: str, due_in_s: float = 0.0) -> bool:
        """Put a batch back before it is finished; that isn't a turn that stalled."""
        moment = now(self._session)
        released = change(
            key,
            lease=None,
            due_at=moment + timedelta(seconds=due_in_s),
            updated_at=moment,
            stalled_attempts=0,
        )
        return changed(self._session, _held(released, lease)) is not None

    def fail_attempt(
        self, key: int, *, lease: str, policy: AttemptPolicy, file_s: int | None, code: str
    ) -> Batch | None:
        """End a turn that failed; the policy decides when the batch is tried again, if ever."""
        batch = self._lock(key, lease)
        if batch is None:
            return None
        moment = now(self._session)
        if policy.next(batch, moment) is None:
            # Not even its lines could be written off.
            stalled = batch.stalled_attempts
            error = LineError(code=code, message=f"{stalled} turns in a row got nothing done.")
            return self._end(batch, status=BatchStatus.FAILED, file_s=file_s, errors=[error])
        has_progressed = batch.offset > batch.lease_offset
        stalled = 0 if has_progressed else batch.stalled_attempts + 1
        counted = replace(batch, stalled_attempts=stalled)
        failed = change(
            key,
            lease=None,
            stalled_attempts=stalled,
            # After the last attempt a turn follows that runs nothing, and says so of each line.
            due_at=policy.next(counted, moment) or moment,
            updated_at=moment,
        )
        return changed(self._session, failed)

    def _lock(self, key: int, lease: str) -> Batch | None:
        """Lock a batch until the commit and return it; None when the lease on it is lost."""
        held = select(TABLE).where(TABLE.c.key == key, TABLE.c.lease == lease).with_for_update()
        row = self._session.execute(held).mappings().one_or_none()
        return as_batch(row) if row else None

    def _append(self, batch: Batch, kind: str, text: bytes) -> dict[str, Any]:
        """Append to a file of a batch, which is made for its first line; return what changes."""
        if not text:
            return {}
        key = batch.output_file_key if kind == "output" else batch.error_file_key
        if key is not None:
            self._files.append(key, text)
            return {}
        file = self._files.add(
            file_id=new_file_id(),
            collection=batch.collection,
            purpose=Purpose.OUTPUT,
            filename=f"{batch.id}_{kind}.jsonl",
        )
        self._files.append(file.key, text)
        return {f"{kind}_file_key": file.key, f"{kind}_file_id": file.id}

    def _end(
        self,
        batch: Batch,
        *,
        status: BatchStatus,
        file_s: int | None,
        errors: Sequence[LineError],
    ) -> Batch | None:
        moment = now(self._session)
        for key in (batch.output_file_key, batch.error_file_key):
            if key is not None:
                expires_s = batch.output_expires_s or file_s
                self._files.complete(key, expires_s=expires_s, created_at=moment)
        ended = change(
            batch.key,
            status=status,
            is_open=False,
            lease=None,
            finished_at=moment,
            updated_at=moment,
            errors=[error.as_dict() for error in errors] or None,
        )
        return changed(self._session, ended)


def as_batch(row: Any) -> Batch:  # noqa: ANN401  # a mapping of columns
    """Return a row as a value; its keys are the columns' names in SQL."""
    values = {column.key: row[column.name] for column in TABLE.columns}
    return Batch(**{**values, "status": BatchStatus(values["status"])})


def change(key: int, **values: object) -> Update:
    """Return a statement that changes a batch."""
    return update(TABLE).where(TABLE.c.key == key).values(values)


def changed(session: Session, statement: Update) -> Batch | None:
    """Run a statement that changes one batch; return it afterwards, None when no row matched."""
    row = session.execute(statement.returning(TABLE)).mappings().one_or_none()
    return as_batch(row) if row else None


def _due(moment: datetime) -> ColumnElement[bool]:
    return TABLE.c.is_open.is_(True) & (TABLE.c.due_at <= moment)


def _held(statement: Update, lease: str) -> Update:
    return statement.where(TABLE.c.lease == lease)
