"""Opens the documents and the index of their vectors."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from app.features.documents.metrics import SearchMetrics
from app.features.documents.service import DocumentService
from app.features.documents.vectors.base import VectorIndex
from app.features.documents.vectors.opening import open_index
from app.runtime.runtime import Runtime


@dataclass(slots=True, kw_only=True)
class DocumentsPart:
    """What the routes of `/documents` and `/search` use."""

    documents: DocumentService
    index: VectorIndex
    metrics: SearchMetrics


@asynccontextmanager
async def open_documents(runtime: Runtime) -> AsyncIterator[None]:
    """Store and find documents during the block."""
    async with AsyncExitStack() as stack:
        database = runtime.require_database()
        metrics = SearchMetrics(runtime.metrics.registry)
        runtime.provide(
            DocumentsPart(
                documents=DocumentService(database),
                index=open_index(stack, database, metrics=metrics),
                metrics=metrics,
            )
        )
        yield
