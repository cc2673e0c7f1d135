"""What is sent to the database for an entry, made once for each row that is written.

SQLAlchemy's own conversion, column by column, takes as long as SQLite's insert into nine indexes.
"""

import json
import math
from collections.abc import Sequence
from datetime import UTC
from operator import attrgetter, itemgetter
from typing import Any

from app.features.prediction_log.tables import COLUMNS, FLOATS, TEXTS
from app.services.prediction_log import PredictionLogEntry

TIME, TASK, SHADOW = (COLUMNS.index(name) for name in ("time", "task", "shadow"))
TEXT_INDEXES = tuple(COLUMNS.index(name) for name in TEXTS)
FLOAT_INDEXES = tuple(COLUMNS.index(name) for name in FLOATS)
values_of = attrgetter(*COLUMNS)
texts_of = itemgetter(*TEXT_INDEXES)
floats_of = itemgetter(*FLOAT_INDEXES)


def for_sqlite(predictions: Sequence[PredictionLogEntry]) -> list[tuple[Any, ...]]:
    """Return a row of the driver's own types for each, in the order of the columns.

    Raises:
        ValueError: a time has no zone.

    """
    return [_sqlite_row(prediction) for prediction in predictions]


def for_postgresql(predictions: Sequence[PredictionLogEntry]) -> str:
    """Return all rows as one JSON array of objects."""
    rows = [dict(zip(COLUMNS, _storable(one), strict=True)) for one in predictions]
    return json.dumps(rows, default=str)


def _sqlite_row(prediction: PredictionLogEntry) -> tuple[Any, ...]:
    row = _storable(prediction)
    moment = row[TIME]
    if moment.tzinfo is None:
        raise ValueError("a time without its zone")
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    # As SQLAlchemy reads it: without the zone, and with microseconds also where they are 0.
    row[TIME] = moment.isoformat(" ", "microseconds")[: -len("+00:00")]
    # Both are of subclasses, of str and int, for which the driver looks for a converter each time.
    row[TASK], row[SHADOW] = str(row[TASK]), int(row[SHADOW])
    return tuple(row)


def _storable(prediction: PredictionLogEntry) -> list[Any]:
    """Return the values of the columns, without what would fail the whole batch."""
    row = list(values_of(prediction))
    # Both are about a row as a whole, since nearly none has anything to replace.
    if not "".join(filter(None, texts_of(row))).isprintable():
        for index in TEXT_INDEXES:
            if text := row[index]:
                clean = text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
                row[index] = clean
    if not math.isfinite(sum(filter(None, floats_of(row)))):
        for index in FLOAT_INDEXES:
            if row[index] is not None and not math.isfinite(row[index]):
                row[index] = None
    return row
