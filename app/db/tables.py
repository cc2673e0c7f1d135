"""What is stored: the tables, their columns and their indexes."""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON

# The newest migration; revisions are numbers of four digits, so that older ones are smaller.
SCHEMA_REVISION = "0001"


class UtcDateTime(TypeDecorator[datetime]):
    """A moment with its time zone, to the microsecond; SQLite has no type for it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without its zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


# SQLite counts up only what is called INTEGER; that has 64 bits too.
Identity = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """All tables. Constraints have names, so that a migration can find them again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ApiKeyRow(Base):
    """A caller's key: its prefix to find it by, its hash to check it with, never the key."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(Text)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    limit: Mapped[str | None] = mapped_column(Text)
    tokens_per_day: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


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
