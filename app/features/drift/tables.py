"""The table of references, one for each version of a model."""

from sqlalchemy import Column, Table, Text

from app.db.tables import Base, Json, UtcDateTime

REFERENCES = Table(
    "drift_references",
    Base.metadata,
    Column("model", Text(), primary_key=True),
    Column("version", Text(), primary_key=True),
    Column("taken_at", UtcDateTime(), nullable=False),
    Column("counts", Json, nullable=False),
)
