"""Deleting the oldest predictions, in pieces so small that nobody waits for a lock."""

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
) -> int:
    """Delete what is older than a time, and the oldest beyond a number of rows; return how many.

    Raises:
        DatabaseUnavailableError: what was deleted until then stays deleted.

    """
    deleted = 0
    if before is not None:
        deleted += await _delete_all(database, Position(before, -1), limit)
    if max_rows is not None:
        oldest = partial(_nth_newest, number=max_rows)
        first = await database.read(oldest, timeout_s=COUNT_TIMEOUT_S)
        deleted += await _delete_all(database, first, limit) if first else 0
    return deleted


async def _delete_all(database: Database, position: Position, limit: int) -> int:
    deleted = 0
    while True:
        some = await database.run(partial(_delete, position=position, limit=limit))
        deleted += some
        if some == 0:
            return deleted


def _nth_newest(session: Session, *, number: int) -> Position | None:
    return PredictionRepository(session).nth_newest(number)


def _delete(session: Session, *, position: Position, limit: int) -> int:
    return PredictionRepository(session).delete_from(position, limit=limit)
