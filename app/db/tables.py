"""What is stored: the tables, their columns and their indexes."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import JSON, TypeEngine

# The newest migration; revisions are numbers of four digits, so that older ones are smaller.
SCHEMA_REVISION = "0005"


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


class VectorType(TypeDecorator[npt.NDArray[np.float32]]):
    """A vector of any length, float32: pgvector's type, and its bytes in SQLite."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return what the column is made of."""
        return dialect.type_descriptor(Vector() if dialect.name == "postgresql" else LargeBinary())

    def process_bind_param(self, value: npt.NDArray[np.float32] | None, dialect: Dialect) -> Any:  # noqa: ANN401
        """Store it."""
        if value is None or dialect.name == "postgresql":
            return value
        return np.ascontiguousarray(value, dtype=np.float32).tobytes()

    def process_result_value(self, value: Any, dialect: Dialect) -> npt.NDArray[np.float32] | None:  # noqa: ANN401
        """Give it."""
        if value is None or dialect.name == "postgresql":
            return value  # type: ignore[no-any-return]  # as pgvector made it
        return np.frombuffer(value, dtype=np.float32)


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


Json = JSON().with_variant(JSONB(), "postgresql")


class DocumentRow(Base):
    """A text to be found. `key` is ours and never used again, `id` is its owner's.

    `collection` is the id of the owner's key, 0 for callers without a stored one. `revision`
    counts changes of the text: vectors are stored only for the text that they were made of.
    """

    __tablename__ = "documents"
    __table_args__ = (
        UniqueConstraint("collection", "id"),
        Index(None, "collection", "key"),
        Index(None, "id"),
        {"sqlite_autoincrement": True},
    )

    key: Mapped[int] = mapped_column(Identity, primary_key=True)
    collection: Mapped[int] = mapped_column(BigInteger)
    id: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    # `metadata` is SQLAlchemy's own name in a declared class.
    meta: Mapped[dict[str, Any]] = mapped_column("metadata", Json)
    revision: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class PassageRow(Base):
    """A piece of a document's text, by its characters, and its vector.

    Vectors of one `space`, a model in one version and edition, can be compared with each other.
    `collection` is the document's: a search reads no other table to tell whose a vector is.

    The migration makes more than is said here: on PostgreSQL an HNSW index for vectors of the
    default embedder's length, on SQLite the table `deleted_passages` that a trigger fills and
    bounds.
    """

    __tablename__ = "passages"
    __table_args__ = (
        UniqueConstraint("document_key", "space", "ordinal"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(Identity, primary_key=True)
    document_key: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("documents.key", ondelete="CASCADE")
    )
    collection: Mapped[int] = mapped_column(BigInteger)
    space: Mapped[str] = mapped_column(Text)
    ordinal: Mapped[int] = mapped_column(Integer)
    start: Mapped[int] = mapped_column(Integer)
    end: Mapped[int] = mapped_column(Integer)
    dimensions: Mapped[int] = mapped_column(Integer)
    vector: Mapped[npt.NDArray[np.float32]] = mapped_column(VectorType)


class JobRow(Base):
    """Work that survives: what is to be done, how far it is, and who has it now.

    `lease` is the token of the worker that has it: whoever doesn't hold it any more can't commit.
    `barren` counts attempts in a row that committed nothing; `lease_done` is what was done when
    this attempt began. `due_at` is when a queued job may run next, `claimed_at` when a worker last
    took it. A finished job is announced
    once, to metrics and its webhook.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("id"),
        UniqueConstraint("collection", "idempotency_key"),
        Index(None, "collection", "key"),
        Index(None, "collection", "claimed_at"),
        Index(None, "status", "collection", "due_at"),
        Index(None, "status", "due_at"),
        Index(None, "is_announced", "status"),
        Index(None, "webhook_status", "webhook_due_at"),
        {"sqlite_autoincrement": True},
    )

    key: Mapped[int] = mapped_column(Identity, primary_key=True)
    id: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(Text)
    collection: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    total: Mapped[int] = mapped_column(Integer)
    done: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    attempts: Mapped[int] = mapped_column(Integer)
    barren: Mapped[int] = mapped_column(Integer)
    lease: Mapped[str | None] = mapped_column(Text)
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    lease_done: Mapped[int] = mapped_column(Integer)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    idempotency_key: Mapped[str | None] = mapped_column(Text)
    request_hash: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    run_seconds: Mapped[float]
    is_announced: Mapped[bool]
    webhook_url: Mapped[str | None] = mapped_column(Text)
    webhook_status: Mapped[str | None] = mapped_column(Text)
    webhook_attempts: Mapped[int] = mapped_column(Integer)
    webhook_due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    webhook_answer: Mapped[str | None] = mapped_column(Text)
    webhook_delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class JobItemRow(Base):
    """One document of a job: waiting, done, skipped (it is gone, or changed) or failed."""

    __tablename__ = "job_items"
    __table_args__ = (Index(None, "job_key", "state", "ordinal"),)

    job_key: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("jobs.key", ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    document_key: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[int] = mapped_column(SmallInteger)
    error: Mapped[str | None] = mapped_column(Text)


class SecretRow(Base):
    """A secret that the service made for itself and that all its processes share."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class SchemaSupportRow(Base):
    """Of each migration that is applied: the oldest program that can work with its tables."""

    __tablename__ = "schema_support"

    revision: Mapped[str] = mapped_column(Text, primary_key=True)
    oldest_program: Mapped[str] = mapped_column(Text)


class WriteCheckRow(Base):
    """The one row that is written to see that the database takes what is written."""

    __tablename__ = "write_check"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)
