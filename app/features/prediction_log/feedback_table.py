"""The table of feedback: a row for each prediction that a caller has said something of."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Table, Text

from app.db.tables import Base, UtcDateTime

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
