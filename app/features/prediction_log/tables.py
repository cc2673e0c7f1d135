"""The tables of the prediction log: of predictions, with its indexes, and of feedback on them."""

from datetime import datetime
from types import NoneType
from typing import Any, get_args, get_type_hints

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, Table, Text, false, text
from sqlalchemy.types import TypeEngine

from app.db.tables import Base, UtcDateTime
from app.services.prediction_log import PredictionLogEntry

# `id` is a random number made with the entry, so that a batch that is written again, because the
# reply to its commit was lost, isn't stored twice.
KEY = ("time", "id")
# 64-bit ids. `key_id` is no foreign key, because rows stay when a key is deleted.
BIG = ("id", "key_id")
SQL_TYPES: dict[type, TypeEngine[Any]] = {
    datetime: UtcDateTime(),
    float: Double(),
    int: Integer(),
    str: Text(),
    bool: Boolean(),
}
# Each set of filters has an index that ends with the order of pages. So a page is one range of one
# index, however the filters are correlated. With fewer indexes PostgreSQL reads the log backwards
# for rows that match, which takes half a second at 500,000 rows if the newest don't. An index
# costs 90 bytes a row.
FILTERED_BY = (
    ("key_id",),
    ("model",),
    ("label",),
    ("key_id", "model"),
    ("key_id", "label"),
    ("model", "label"),
    ("key_id", "model", "label"),
    ("request_id",),
    ("version",),
)
# Of predictions that failed, which are few: neither index costs anything while all goes well.
FAILURES_BY = ("status", "error")


def _column(name: str, hint: Any) -> Column[Any]:  # noqa: ANN401  # a type, or one with None
    """Return the column of an entry's field."""
    kind, *others = get_args(hint) or (hint,)
    return Column(
        name,
        BigInteger() if name in BIG else SQL_TYPES[kind],
        primary_key=name in KEY,
        nullable=NoneType in others,
        autoincrement=False,
        server_default=false() if kind is bool else None,  # for older programs, which lack it
    )


TABLE = Table(
    "predictions",
    Base.metadata,
    *(_column(name, hint) for name, hint in get_type_hints(PredictionLogEntry).items()),
    *(Index(None, *filters, *KEY) for filters in FILTERED_BY),
    *(
        Index(
            None,
            column,
            *KEY,
            sqlite_where=text("status <> 200"),
            postgresql_where=text("status <> 200"),
        )
        for column in FAILURES_BY
    ),
    # Of what shadows made: few services have any.
    Index(
        "ix_predictions_shadows_time_id",
        *KEY,
        sqlite_where=text("shadow = 1"),
        postgresql_where=text("shadow"),
    ),
)
COLUMNS = tuple(column.name for column in TABLE.columns)
TEXTS = tuple(name for name in COLUMNS if isinstance(TABLE.c[name].type, Text))
FLOATS = tuple(name for name in COLUMNS if isinstance(TABLE.c[name].type, Double))

# It has the prediction's own key, and so its order. No foreign key: rows are deleted together, in
# ranges, and neither table waits for the other. What is filtered and grouped by is copied: most
# predictions have no feedback, and a join would read them.
FEEDBACK = Table(
    "prediction_feedback",
    Base.metadata,
    Column("time", UtcDateTime(), primary_key=True),
    Column("id", BigInteger(), primary_key=True, autoincrement=False),
    Column("key_id", BigInteger()),
    Column("model", Text(), nullable=False),
    Column("version", Text()),
    Column("given_at", UtcDateTime(), nullable=False),
    Column("label", Text()),
    Column("correct", Boolean()),
    Column("score", Double()),
    Column("comment", Text()),
)
