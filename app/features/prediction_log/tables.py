"""The table of the prediction log, and its indexes."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    Index,
    Integer,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import JSON

from app.db.tables import Base, UtcDateTime

FILTERED_BY = (
    ("key_id",),
    ("model",),
    ("label",),
    ("key_id", "model"),
    ("key_id", "label"),
    ("model", "label"),
    ("key_id", "model", "label"),
    ("request_id",),
)


class PredictionRow(Base):
    """One answer. Each set of filters has an index that ends with the order of pages.

    So a page is one range of one index, whatever the filters have to do with each other. With fewer
    indexes PostgreSQL reads the log backwards for those that match, which takes half a second at
    500,000 rows when the newest ones don't. An index costs a row 90 bytes.

    `id` is a random number made by the writer: a batch that is written again, because the answer
    to its commit was lost, is recognised and not counted twice. `key_id` refers to a key but is no
    foreign key: the log outlives keys.
    """

    __tablename__ = "predictions"
    __table_args__ = (*(Index(None, *filters, "time", "id") for filters in FILTERED_BY),)

    time: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    request_id: Mapped[str] = mapped_column(Text)
    key_id: Mapped[int | None] = mapped_column(BigInteger)
    task: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    version: Mapped[str | None] = mapped_column(Text)
    status: Mapped[int] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(Text)
    latency_ms: Mapped[float]
    label: Mapped[str | None] = mapped_column(Text)
    score: Mapped[float | None]
    input_hash: Mapped[str | None] = mapped_column(Text)
    input: Mapped[str | None] = mapped_column(Text)
    prompt_tokens: Mapped[int | None] = mapped_column(Integer)
    completion_tokens: Mapped[int | None] = mapped_column(Integer)
    ttft_ms: Mapped[float | None]
    finish_reason: Mapped[str | None] = mapped_column(Text)


Json = JSON().with_variant(JSONB(), "postgresql")
