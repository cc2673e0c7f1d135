"""The tables of files and of batches."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, LargeBinary, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.tables import Base, Identity, Json, UtcDateTime


class FileRow(Base):
    """A file: what a client has uploaded, or what a batch has answered.

    `is_complete` says that it can be read: an upload, or the file of a batch that isn't finished,
    is not.
    """

    __tablename__ = "batch_files"
    __table_args__ = (
        UniqueConstraint("id"),
        Index(None, "collection", "key"),
        Index(None, "expires_at"),
        {"sqlite_autoincrement": True},
    )

    key: Mapped[int] = mapped_column(Identity, primary_key=True)
    id: Mapped[str] = mapped_column(Text)
    collection: Mapped[int] = mapped_column(BigInteger)
    filename: Mapped[str] = mapped_column(Text)
    purpose: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column("bytes", BigInteger, key="size")
    chunks: Mapped[int] = mapped_column(Integer)
    is_complete: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class FileChunkRow(Base):
    """A part of a file; all parts of an upload but the last are of one size."""

    __tablename__ = "batch_file_chunks"

    file_key: Mapped[int] = mapped_column(
        BigInteger, ForeignKey("batch_files.key", ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class BatchRow(Base):
    """A batch: what is to be run, how far it is, and which process has it now.

    All lines before `offset`, which is one of the input file's bytes, are answered, and no other:
    their answers are in the output file and the error file. `lease` is the token of the process
    that has the batch: without it nothing is written. `lease_offset` is the offset when this turn
    began, `stalled_attempts` counts turns in a row that answered nothing and didn't end as they
    should.
    """

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("id"),
        Index(None, "collection", "key"),
        Index(None, "collection", "claimed_at"),
        Index(None, "is_open", "collection", "due_at"),
        Index(None, "input_file_key"),
        {"sqlite_autoincrement": True},
    )

    key: Mapped[int] = mapped_column(Identity, primary_key=True)
    id: Mapped[str] = mapped_column(Text)
    collection: Mapped[int] = mapped_column(BigInteger)
    request_id: Mapped[str] = mapped_column(Text)
    endpoint: Mapped[str] = mapped_column(Text)
    completion_window: Mapped[str] = mapped_column("window", Text, key="completion_window")
    meta: Mapped[dict[str, str] | None] = mapped_column("metadata", Json, key="meta")
    input_file_key: Mapped[int] = mapped_column(BigInteger)
    input_file_id: Mapped[str] = mapped_column(Text)
    output_file_key: Mapped[int | None] = mapped_column(BigInteger)
    error_file_key: Mapped[int | None] = mapped_column(BigInteger)
    output_file_id: Mapped[str | None] = mapped_column(Text)
    error_file_id: Mapped[str | None] = mapped_column(Text)
    output_expires_s: Mapped[int | None] = mapped_column(Integer)
    status: Mapped[str] = mapped_column(Text)
    is_open: Mapped[bool]
    total: Mapped[int] = mapped_column(Integer)
    completed: Mapped[int] = mapped_column(Integer)
    failed: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int] = mapped_column("read_to", BigInteger, key="offset")
    output_bytes: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[list[dict[str, Any]] | None] = mapped_column(Json)
    attempts: Mapped[int] = mapped_column(Integer)
    stalled_attempts: Mapped[int] = mapped_column(Integer)
    lease: Mapped[str | None] = mapped_column(Text)
    lease_offset: Mapped[int] = mapped_column(BigInteger)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    in_progress_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finalizing_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancelling_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
