"""The tables of documents, their passages and vectors."""

from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pgvector.sqlalchemy import Vector
from sqlalchemy import (
    BigInteger,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import TypeEngine

from app.db.tables import Base, Identity, Json, UtcDateTime


class VectorType(TypeDecorator[npt.NDArray[np.float32]]):
    """A vector of any length, float32: pgvector's type, and its bytes in SQLite."""

    impl = LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the column's type in a database."""
        return dialect.type_descriptor(Vector() if dialect.name == "postgresql" else LargeBinary())

    def process_bind_param(self, value: npt.NDArray[np.float32] | None, dialect: Dialect) -> Any:  # noqa: ANN401
        """Return the value to store."""
        if value is None or dialect.name == "postgresql":
            return value
        return np.ascontiguousarray(value, dtype=np.float32).tobytes()

    def process_result_value(self, value: Any, dialect: Dialect) -> npt.NDArray[np.float32] | None:  # noqa: ANN401
        """Return the stored vector."""
        if value is None or dialect.name == "postgresql":
            return value  # type: ignore[no-any-return]  # as pgvector made it
        return np.frombuffer(value, dtype=np.float32)


class DocumentRow(Base):
    """A text to be found. `key` is ours and never reused, `id` is chosen by its owner.

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
    `collection` repeats the document's, so that a search needs no join to filter by it.

    The migration also makes: on PostgreSQL an HNSW index for vectors of the
    default embedder's length, on SQLite the table `deleted_passages`, which a trigger fills and
    keeps short.
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
