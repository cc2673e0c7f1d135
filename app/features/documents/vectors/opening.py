"""Opens the index of vectors that fits the database."""

from contextlib import AsyncExitStack

from app.db.session import Database
from app.features.documents.metrics import SearchMetrics
from app.features.documents.vectors.base import VectorIndex
from app.features.documents.vectors.exact import ExactIndex
from app.features.documents.vectors.pgvector import PgVectorIndex


def open_index(stack: AsyncExitStack, database: Database, *, metrics: SearchMetrics) -> VectorIndex:
    """Return the index; the stack closes it."""
    if database.dialect == "postgresql":
        return PgVectorIndex(database)
    index = ExactIndex(database, metrics=metrics)
    stack.push_async_callback(index.close)
    return index
