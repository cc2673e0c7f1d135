"""Keeps the vectors of one space in memory, and updates them from the tables."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from sqlalchemy import LargeBinary, Row, column, func, select, table, type_coerce
from sqlalchemy.orm import Session

from app.db.session import Database
from app.features.documents.tables import PassageRow
from app.features.documents.vectors.matrix import IntArray, Matrix, Passages

# Rows of one read: 8 MB at 384 dimensions.
CHUNK = 5_000

# Filled by a trigger, which also deletes the oldest rows; see migration 0004.
DELETED = table("deleted_passages", column("id"), column("passage_id"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """The passages and deletions since the last read."""

    passages: Passages
    last_passage: int  # id of the last one read
    deleted: IntArray  # ids of passages
    last_deletion: int
    is_all: bool  # nothing is left to read
    is_behind: bool  # deletions are missing: everything is read again


class PassageCache:
    """The vectors of one space of a SQLite database.

    Args:
        database: has the tables.
        space: which vectors.
        dimensions: of each.
        threads: copy the vectors.

    """

    def __init__(
        self, database: Database, *, space: str, dimensions: int, threads: Executor
    ) -> None:
        self.matrix = Matrix(dimensions)
        self._database = database
        self._space = space
        self._dimensions = dimensions
        self._threads = threads
        self._last_passage = 0
        self._last_deletion: int | None = None
        self._lock = asyncio.Lock()
        self._began = 0
        self._ended = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def current(self) -> Matrix:
        """Return the matrix with all that was committed before this call.

        Raises:
            DatabaseUnavailableError: it doesn't answer.

        """
        # In a task of its own, since others may wait for it when this caller leaves.
        task = asyncio.create_task(self._sync_once(self._began))
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        await asyncio.shield(task)
        return self.matrix

    async def close(self) -> None:
        """Wait for reads that still run."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sync_once(self, began: int) -> None:
        """Read what changed, unless another read has begun and ended since this call."""
        async with self._lock:
            if self._ended > began:
                return
            self._began += 1
            await self._sync()
            self._ended = self._began

    async def _sync(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            changes = await self._database.read(self._read)
            if changes.is_behind:
                self.matrix = Matrix(self._dimensions)
                self._last_passage, self._last_deletion = 0, None
                continue
            if len(changes.passages) or len(changes.deleted):
                await loop.run_in_executor(self._threads, self._apply, changes)
            self._last_passage = changes.last_passage
            self._last_deletion = changes.last_deletion
            if changes.is_all:
                break

    def _read(self, session: Session) -> _Changes:
        # Three statements, each reading one end of an index; one for both ends would scan it.
        newest = session.scalar(select(func.max(PassageRow.id))) or 0
        last = session.scalar(select(func.max(DELETED.c.id))) or 0
        first = session.scalar(select(func.min(DELETED.c.id))) or 0
        seen = last if self._last_deletion is None else self._last_deletion
        rows = self._new_passages(session) if newest > self._last_passage else []
        is_all = len(rows) < CHUNK
        return _Changes(
            passages=self._columns(rows),
            last_passage=newest if is_all else rows[-1].id,
            deleted=_deleted(session, seen) if last > seen else np.empty(0, np.int64),
            last_deletion=last,
            is_all=is_all,
            is_behind=first > seen + 1,
        )

    def _new_passages(self, session: Session) -> Sequence[Row[int, int, int, bytes]]:
        query = (
            select(
                PassageRow.id,
                PassageRow.document_key,
                PassageRow.collection,
                type_coerce(PassageRow.vector, LargeBinary),
            )
            .where(
                PassageRow.id > self._last_passage,
                PassageRow.space == self._space,
                PassageRow.dimensions == self._dimensions,
            )
            .order_by(PassageRow.id)
            .limit(CHUNK)
        )
        return session.execute(query).all()

    def _columns(self, rows: Sequence[Row[int, int, int, bytes]]) -> Passages:
        ids, keys, collections, vectors = zip(*rows, strict=True) if rows else ((), (), (), ())
        numbers = np.frombuffer(b"".join(vectors), np.float32)
        return Passages(
            ids=np.array(ids, np.int64),
            document_keys=np.array(keys, np.int64),
            collections=np.array(collections, np.int64),
            vectors=numbers.reshape(len(rows), self._dimensions),
        )

    def _apply(self, changes: _Changes) -> None:
        self.matrix.add(changes.passages)
        self.matrix.remove(changes.deleted)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen, in case no search waits


def _deleted(session: Session, seen: int) -> IntArray:
    query = select(DELETED.c.passage_id).where(DELETED.c.id > seen)
    return np.array(session.scalars(query).all(), np.int64)
