"""Batches as their owners see them, within one transaction."""

from datetime import timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, delete, func, insert, select, true
from sqlalchemy.orm import Session

from app.db.clock import now
from app.features.openai_batches.leases import NO_PROGRESS, TABLE, as_batch, change, changed
from app.features.openai_batches.values import Batch, BatchStatus, NewBatch, StoredFile

# The first number of advisory locks; jobs have another one.
LOCKS = 60_138


class BatchRepository:
    """The batches, within one transaction. Times are those of the database's clock."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"

    def add(self, new: NewBatch, file: StoredFile, *, window_s: int) -> Batch:
        """Store a batch, which is due at once."""
        moment = now(self._session)
        values = {name: getattr(new, name) for name in NewBatch.__dataclass_fields__}
        counts = ("total", "completed", "failed", "offset", "output_bytes")
        started = {
            **dict.fromkeys((*counts, "attempts", "stalled_attempts"), 0),
            **dict.fromkeys(("created_at", "updated_at", "due_at"), moment),
            "status": BatchStatus.VALIDATING,
            "is_open": True,
            "lease_offset": NO_PROGRESS,
            "input_file_key": file.key,
            "input_file_id": file.id,
            "expires_at": moment + timedelta(seconds=window_s),
        }
        added = insert(TABLE).values(values | started).returning(TABLE)
        return as_batch(self._session.execute(added).mappings().one())

    def by_id(self, batch_id: str, *, collection: int | None) -> Batch | None:
        """Return a batch of a collection, or of any when that is None."""
        found = select(TABLE).where(TABLE.c.id == batch_id, _of(collection))
        row = self._session.execute(found).mappings().one_or_none()
        return as_batch(row) if row else None

    def page(self, *, collection: int | None, after: Batch | None, limit: int) -> list[Batch]:
        """Return batches, newest first, those behind another one."""
        page = select(TABLE).where(_of(collection)).order_by(TABLE.c.key.desc()).limit(limit)
        if after is not None:
            page = page.where(TABLE.c.key < after.key)
        return [as_batch(row) for row in self._session.execute(page).mappings()]

    def count_open(self, collection: int) -> int:
        """Return how many batches of a collection aren't finished."""
        mine = (TABLE.c.collection == collection) & TABLE.c.is_open.is_(True)
        return self._session.scalar(select(func.count()).select_from(TABLE).where(mine)) or 0

    def lock_collection(self, collection: int) -> None:
        """Lock a collection until the commit, for counting; SQLite's writers never overlap."""
        if not self._is_sqlite:
            lock = func.pg_advisory_xact_lock(LOCKS, collection % 2**31)
            self._session.execute(select(lock))

    def cancel(self, key: int) -> Batch | None:
        """Let no more lines of a batch be run; None when it is too late, or done before."""
        moment = now(self._session)
        cancelled = change(
            key, status=BatchStatus.CANCELLING, cancelling_at=moment, updated_at=moment
        )
        may = TABLE.c.status.in_((BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS))
        return changed(self._session, cancelled.where(may))

    def delete_finished(self, *, age_s: float, limit: int) -> int:
        """Delete batches that finished so long ago, the oldest first; return how many."""
        before = now(self._session) - timedelta(seconds=age_s)
        old = TABLE.c.is_open.is_(False) & (TABLE.c.finished_at < before)
        oldest = select(TABLE.c.key).where(old).order_by(TABLE.c.key).limit(limit)
        deletion = delete(TABLE).where(TABLE.c.key.in_(self._session.scalars(oldest).all()))
        return cast("CursorResult[Any]", self._session.execute(deletion)).rowcount


def _of(collection: int | None) -> ColumnElement[bool]:
    return true() if collection is None else TABLE.c.collection == collection
