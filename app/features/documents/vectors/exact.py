"""Search in SQLite: the query is compared with every vector of its space, in memory."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.session import Database
from app.errors import OverloadedError
from app.features.documents.metrics import SearchMetrics
from app.features.documents.tables import DocumentRow, PassageRow
from app.features.documents.vectors.base import Hit, Query
from app.features.documents.vectors.cache import PassageCache
from app.features.documents.vectors.filters import conditions
from app.features.documents.vectors.hits import read_hits
from app.features.documents.vectors.matrix import IntArray, Matrix

# Comparing many vectors is bound by memory bandwidth, which few threads use up.
THREADS = 2
MAX_SEARCHES = 64
# A filter is first applied to the nearest documents: applying it to all takes a hundred times
# longer.
NEAREST = 1_000
# Searches again when a document was deleted before its text was read.
TRIES = 3


class ExactIndex:
    """Compares the query with every vector of its space.

    Each search first reads what was added and deleted since the last one; the first search of a
    space reads all its vectors.

    Args:
        database: SQLite.
        metrics: where the memory is reported.

    """

    def __init__(self, database: Database, *, metrics: SearchMetrics) -> None:
        self._database = database
        self._size_bytes = metrics.search_index_bytes
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="search")
        # One for each embedder of the catalogue.
        self._caches: dict[tuple[str, int], PassageCache] = {}
        self._searches = 0

    async def search(self, query: Query) -> list[Hit]:
        """Return the best passage of each document, the best first; see `VectorIndex`."""
        if self._searches >= MAX_SEARCHES:
            raise OverloadedError(retry_after_s=1)
        self._searches += 1
        try:
            for _ in range(TRIES):
                scores = await self._find(query)
                hits = await self._database.read(partial(read_hits, scores=scores))
                if len(hits) == len(scores):
                    break
            return hits
        finally:
            self._searches -= 1

    async def close(self) -> None:
        """Wait for reads that still run, and free threads and memory."""
        for cache in self._caches.values():
            await cache.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._caches.clear()

    async def _find(self, query: Query) -> list[tuple[int, float]]:
        """Return passages and their scores."""
        matrix = await self._cache(query).current()
        self._size_bytes.set(sum(cache.matrix.size_bytes for cache in self._caches.values()))
        if not query.filter:
            return await self._best(matrix, query, limit=query.limit)
        nearest = await self._best(matrix, query, limit=NEAREST)
        passing = await self._database.read(partial(_passing, query, nearest))
        if len(passing) >= query.limit or len(nearest) < NEAREST:
            return passing[: query.limit]
        keys = await self._database.read(partial(_matching, query))
        return await self._best(matrix, query, document_keys=keys, limit=query.limit)

    async def _best(
        self, matrix: Matrix, query: Query, *, document_keys: IntArray | None = None, limit: int
    ) -> list[tuple[int, float]]:
        best = partial(
            matrix.best,
            query.vector,
            similarity=query.similarity,
            collection=query.collection,
            document_keys=document_keys,
            limit=limit,
        )
        return await asyncio.get_running_loop().run_in_executor(self._threads, best)

    def _cache(self, query: Query) -> PassageCache:
        dimensions = len(query.vector)
        key = query.space, dimensions
        if key not in self._caches:
            self._caches[key] = PassageCache(
                self._database, space=query.space, dimensions=dimensions, threads=self._threads
            )
        return self._caches[key]


def _passing(
    query: Query, scores: Sequence[tuple[int, float]], session: Session
) -> list[tuple[int, float]]:
    """Return the passages whose documents match the filter, in their order."""
    statement = (
        select(PassageRow.id)
        .join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        .where(PassageRow.id.in_([passage_id for passage_id, _ in scores]))
        .where(*conditions(query.filter, "sqlite"))
    )
    passing = set(session.scalars(statement))
    return [(passage_id, score) for passage_id, score in scores if passage_id in passing]


def _matching(query: Query, session: Session) -> IntArray:
    """Return the keys of the documents that match the filter."""
    statement = select(DocumentRow.key).where(*conditions(query.filter, "sqlite"))
    if query.collection is not None:
        statement = statement.where(DocumentRow.collection == query.collection)
    return np.array(session.scalars(statement).all(), np.int64)
