"""The prediction log within one transaction: writes batches, reads pages, deletes old rows."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import (
    CursorResult,
    Text,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.features.prediction_log.feedback import FeedbackRepository
from app.features.prediction_log.filters import (
    NO_FILTERS,
    Filters,
    Position,
    row_of,
)
from app.features.prediction_log.page_query import ORDER, page_query
from app.features.prediction_log.parameters import for_postgresql, for_sqlite
from app.features.prediction_log.tables import COLUMNS, TABLE
from app.services.prediction_log import PredictionLogEntry

# As text, with a tuple for each row: so SQLAlchemy hands both to the driver as they are.
INSERT_SQLITE = str(sqlite.insert(TABLE).on_conflict_do_nothing().compile(dialect=sqlite.dialect()))
# One parameter for the whole batch: takes a third of a VALUES list's time, and holds the GIL for a
# quarter. COPY takes a quarter less, but fails if a row is stored already.
_ROWS = func.json_populate_recordset(text("NULL::predictions"), bindparam("rows", type_=Text))
INSERT_JSON = (
    postgresql.insert(TABLE)
    .from_select(COLUMNS, select(*map(literal_column, COLUMNS)).select_from(_ROWS))
    .on_conflict_do_nothing()
)
# Otherwise PostgreSQL estimates how often these values occur together, and may choose an index with
# only a part of the order and sort, or read the log backwards. If they don't occur together, that
# takes half a second.
NO_SORTING = text("SELECT set_config(name, 'off', true) FROM unnest(:names) AS name").bindparams(
    names=["enable_sort", "enable_incremental_sort"]
)


class PredictionRepository:
    """The log, within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"

    def insert_many(self, predictions: Sequence[PredictionLogEntry]) -> None:
        """Store a batch; rows that are stored already, by time and id, are skipped."""
        if not predictions:
            return
        if self._is_sqlite:
            rows = for_sqlite(predictions)
            self._session.connection().exec_driver_sql(INSERT_SQLITE, rows)
        else:
            self._session.execute(INSERT_JSON, {"rows": for_postgresql(predictions)})

    def page(
        self, filters: Filters = NO_FILTERS, *, after: Position | None = None, limit: int
    ) -> list[PredictionLogEntry]:
        """Return predictions, newest first, that come after a position in that order."""
        query = page_query(filters, after, limit=limit)
        if not self._is_sqlite:
            self._session.execute(NO_SORTING)
        return [PredictionLogEntry(**row) for row in self._session.execute(query).mappings()]

    def nth_newest(self, number: int) -> Position | None:
        """Return the position of the prediction with this number; the newest has number 0."""
        newest = [column.desc() for column in ORDER]
        query = select(*ORDER).order_by(*newest).offset(number).limit(1)
        row = self._session.execute(query).one_or_none()
        return Position(row.time, row.id) if row else None

    def delete_from(self, position: Position, *, limit: int) -> int:
        """Delete up to `limit` of the oldest predictions, up to a position; return how many."""
        oldest = select(*ORDER).where(tuple_(*ORDER) <= row_of(ORDER, position.time, position.id))
        oldest = oldest.order_by(*ORDER).limit(limit)
        rows = self._session.execute(oldest).all()
        if not rows:
            return 0
        # Rows that another process deletes at the same time are counted there.
        deletion = delete(TABLE).where(
            tuple_(*ORDER) >= row_of(ORDER, *rows[0]),
            tuple_(*ORDER) <= row_of(ORDER, *rows[-1]),
        )
        FeedbackRepository(self._session).delete_to(Position(*rows[-1]))
        return cast("CursorResult[Any]", self._session.execute(deletion)).rowcount
