"""Which index of vectors a service has: that of its database."""

from contextlib import AsyncExitStack

from app.db.session import Database
from app.features.documents.metrics import SearchMetrics
from app.features.documents.vectors.base import VectorIndex
from app.features.documents.vectors.exact import ExactIndex
from app.features.documents.vectors.pgvector import PgVectorIndex


def open_index(stack: AsyncExitStack, database: Database, *, metrics: SearchMetrics) -> VectorIndex:
    """Return the index; it is closed at the end."""
    if database.dialect == "postgresql":
        return PgVectorIndex(database)
    index = ExactIndex(database, metrics=metrics)
    stack.push_async_callback(index.close)
    return index
