"""The tables of jobs, of their documents, and of the secret that signs webhooks."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, SmallInteger, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.tables import Base, Identity, Json, UtcDateTime


class JobRow(Base):
    """A job: what is to be done, how far it is, and which worker has it now.

    `lease` is the token of the worker that has it: without it no worker can commit.
    `stalled_attempts` counts attempts in a row that committed nothing; `lease_done` is what was
    done when this attempt began. `due_at` is when a queued job may run next, `claimed_at` when a
    worker last took it. `trace` has the headers of the trace in which it was submitted.
    `is_announced` says that a finished job has been reported: counted, logged, its webhook due.
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
    stalled_attempts: Mapped[int] = mapped_column("barren", Integer, key="stalled_attempts")
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
    trace: Mapped[str | None] = mapped_column(Text)
    webhook_url: Mapped[str | None] = mapped_column(Text)
    webhook_status: Mapped[str | None] = mapped_column(Text)
    webhook_attempts: Mapped[int] = mapped_column(Integer)
    webhook_due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    webhook_answer: Mapped[str | None] = mapped_column(Text)
    webhook_delivered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class JobItemRow(Base):
    """One document of a job; `state` is an `ItemState`."""

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
    """A secret that the service generated and that all its processes share."""

    __tablename__ = "secrets"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    value: Mapped[str] = mapped_column(Text)
