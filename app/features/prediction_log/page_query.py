"""The one query of a page: which index is read, from where to where, and what is left out of it."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, and_, literal_column, select, tuple_

from app.features.prediction_log.filters import FIRST, LAST, Filters, Position, row_of
from app.features.prediction_log.tables import FEEDBACK, TABLE
from app.services.prediction_log import OK

ORDER = (TABLE.c.time, TABLE.c.id)
JUDGED = (FEEDBACK.c.time, FEEDBACK.c.id)
IS_JUDGED = and_(FEEDBACK.c.time == TABLE.c.time, FEEDBACK.c.id == TABLE.c.id)
# As the indexes of failures say it, of which they have the rows alone.
FAILED = TABLE.c.status != literal_column(str(OK))
# Of these filters the feedback itself has the columns.
COPIED = ("key_id", "model", "version")


def page_query(filters: Filters, after: Position | None, *, limit: int) -> Select[Any]:
    """Return what reads predictions, newest first, that come after a position in that order."""
    equal = filters.equal()
    index: Sequence[Column[Any]] = JUDGED
    values: Sequence[object] = ()
    if filters.feedback in {"given", "correct", "wrong"}:
        # These are few: they are read in their own order, and each leads to its prediction.
        query = select(TABLE).join(FEEDBACK, IS_JUDGED).where(*_judged(filters, equal))
    else:
        indexed = filters.indexed()
        rest = [TABLE.c[name] == value for name, value in equal.items() if name not in indexed]
        query = select(TABLE).where(*rest)
        index = (*(TABLE.c[name] for name in indexed), *ORDER)
        values = tuple(equal[name] for name in indexed)
    if filters.feedback == "none":
        query = query.where(~select(FEEDBACK.c.id).where(IS_JUDGED).exists())
    if filters.shadow is not None:
        query = query.where(TABLE.c.shadow if filters.shadow else ~TABLE.c.shadow)
    if filters.are_failures:
        query = query.where(FAILED)
    return _ranged(query, index, values, filters, after).limit(limit)


def _judged(filters: Filters, equal: dict[str, object]) -> list[ColumnElement[bool]]:
    """Return the conditions of predictions with feedback."""
    conditions: list[ColumnElement[bool]] = [
        (FEEDBACK if name in COPIED else TABLE).c[name] == value for name, value in equal.items()
    ]
    if filters.feedback != "given":
        conditions.append(FEEDBACK.c.correct.is_(filters.feedback == "correct"))
    return conditions


def _ranged(
    query: Select[Any],
    index: Sequence[Column[Any]],
    values: Sequence[object],
    filters: Filters,
    after: Position | None,
) -> Select[Any]:
    """Return the query of one range of the one index that has this order.

    Args:
        query: of what is wanted.
        index: its columns.
        values: of the first of them, which are filtered.
        filters: with times.
        after: where the page before ended.

    """
    until = Position(filters.until or LAST.time, FIRST.id)
    end = min(after, until) if after else until
    ranged = query.where(
        tuple_(*index) >= row_of(index, *values, filters.since or FIRST.time, FIRST.id),
        tuple_(*index) < row_of(index, *values, end.time, end.id),
    )
    return ranged.order_by(*(column.desc() for column in index))
