"""Reads the prediction log, of any size, in constant memory."""

from collections.abc import AsyncIterator
from functools import partial

from sqlalchemy.orm import Session

from app.db.session import Database
from app.features.prediction_log.feedback import FeedbackRepository
from app.features.prediction_log.filters import NO_FILTERS, Filters, Position
from app.features.prediction_log.repository import PredictionRepository
from app.services.prediction_log import PredictionLogEntry

EXPORT_ROWS = 1000


async def export(
    database: Database, filters: Filters = NO_FILTERS, *, rows: int = EXPORT_ROWS
) -> AsyncIterator[list[PredictionLogEntry]]:
    """Yield all predictions in chunks, newest first.

    Each chunk is a transaction of its own: a slow reader holds no connection, no thread and no
    snapshot. Rows that are written meanwhile are newer than those still to be read, unless they are
    of streams that began before: some of these may be missing.

    Raises:
        DatabaseUnavailableError: also in the middle.

    """
    after = None
    while True:
        chunk = await database.read(partial(read_page, filters=filters, after=after, limit=rows))
        if chunk:
            yield chunk
        if len(chunk) < rows:
            return
        after = Position.of(chunk[-1])


def read_page(
    session: Session, *, filters: Filters, after: Position | None, limit: int
) -> list[PredictionLogEntry]:
    """Return a page with the feedback on it, within a transaction."""
    page = PredictionRepository(session).page(filters, after=after, limit=limit)
    return FeedbackRepository(session).with_feedback(page)
