"""The prediction log within one transaction: writes batches, reads pages, deletes old rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self, cast

from sqlalchemy import (
    Column,
    CursorResult,
    Text,
    Tuple,
    bindparam,
    delete,
    func,
    literal,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.features.prediction_log.parameters import for_postgresql, for_sqlite
from app.features.prediction_log.tables import COLUMNS, TABLE
from app.services.prediction_log import ID_BITS, PredictionLogEntry

ORDER = (TABLE.c.time, TABLE.c.id)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A position in the log; `str` and `parse` make a cursor of it."""

    time: datetime
    id: int

    def __str__(self) -> str:
        return f"{(self.time - EPOCH) // timedelta(microseconds=1)}-{self.id}"

    @classmethod
    def parse(cls, cursor: str) -> Self:
        """Read a cursor.

        Raises:
            ValueError: it isn't a cursor.

        """
        microseconds, _, number = cursor.partition("-")
        if not (microseconds.isdecimal() and number.isdecimal()) or int(number) >> ID_BITS:
            raise ValueError("not a cursor")
        try:
            return cls(EPOCH + timedelta(microseconds=int(microseconds)), int(number))
        except OverflowError:
            raise ValueError("not a cursor") from None

    @classmethod
    def of(cls, prediction: PredictionLogEntry) -> Self:
        """Return a prediction's position."""
        return cls(prediction.time, prediction.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Which predictions; None means no filter. `since` is included, `until` isn't."""

    key_id: int | None = None
    model: str | None = None
    label: str | None = None
    request_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def equal(self) -> dict[str, object]:
        """Return columns and the values that they must have, in the order of the indexes."""
        values = {name: getattr(self, name) for name in ("key_id", "model", "label", "request_id")}
        return {name: value for name, value in values.items() if value is not None}


NO_FILTERS = Filters()
FIRST = Position(datetime.min.replace(tzinfo=UTC), -1)
LAST = Position(datetime.max.replace(tzinfo=UTC), -1)
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
        equal = filters.equal()
        # A request has few rows, so no index combines its id with other columns.
        indexed = {"request_id"} & equal.keys() or equal.keys()
        prefix = [TABLE.c[name] for name in equal if name in indexed]
        values = [equal[column.name] for column in prefix]
        index = [*prefix, *ORDER]
        until = Position(filters.until or LAST.time, FIRST.id)
        end = min(after, until) if after else until
        # One range of the one index that has this order.
        within = (
            tuple_(*index) >= _tuple(index, *values, filters.since or FIRST.time, FIRST.id),
            tuple_(*index) < _tuple(index, *values, end.time, end.id),
            *(TABLE.c[name] == value for name, value in equal.items() if name not in indexed),
        )
        newest = [column.desc() for column in index]
        query = select(TABLE).where(*within).order_by(*newest).limit(limit)
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
        oldest = select(*ORDER).where(tuple_(*ORDER) <= _tuple(ORDER, position.time, position.id))
        oldest = oldest.order_by(*ORDER).limit(limit)
        rows = self._session.execute(oldest).all()
        if not rows:
            return 0
        # Rows that another process deletes at the same time are counted there.
        deletion = delete(TABLE).where(
            tuple_(*ORDER) >= _tuple(ORDER, *rows[0]),
            tuple_(*ORDER) <= _tuple(ORDER, *rows[-1]),
        )
        return cast("CursorResult[Any]", self._session.execute(deletion)).rowcount


def _tuple(columns: Sequence[Column[Any]], *values: object) -> Tuple:
    """Return a row value of SQL; each value is bound as its column's type."""
    return tuple_(*(literal(v, column.type) for column, v in zip(columns, values, strict=True)))
