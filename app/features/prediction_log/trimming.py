"""Deleting the oldest predictions, in pieces so small that nobody waits for a lock."""

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial

from sqlalchemy.orm import Session

from app.db.session import Database
from app.features.prediction_log.repository import Position, PredictionRepository

DELETE_ROWS = 1000
# Counting half a million index entries takes 0.1 s; a log may be a hundred times as long.
COUNT_TIMEOUT_S = 30.0


async def trim(
    database: Database,
    *,
    before: datetime | None = None,
    max_rows: int | None = None,
    limit: int = DELETE_ROWS,
) -> AsyncIterator[int]:
    """Delete what is older than a time, and the oldest beyond a number of rows.

    Gives the number of rows of each transaction.

    Raises:
        DatabaseUnavailableError: what was deleted until then stays deleted.

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
