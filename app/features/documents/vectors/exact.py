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

# A product with many vectors is bound by the memory, which few threads can keep busy.
THREADS = 2
MAX_SEARCHES = 64
# A filter is first tried on so many documents: a look at all takes a hundred times longer.
NEAREST = 1_000
# A document may be deleted before its text is read; then the next one takes its place.
TRIES = 3


class ExactIndex:
    """Compares the query with every vector of its space.

    Each search first reads what was added and deleted since the last one; the first search of a
    space reads all of it.

    Args:
        database: SQLite.
        metrics: where the memory is told.

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
                found = await self._find(query)
                hits = await self._database.read(partial(read_hits, found=found))
                if len(hits) == len(found):
                    break
            return hits
        finally:
            self._searches -= 1

    async def close(self) -> None:
        """Let readings end, and give threads and memory back."""
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
        place = query.space, dimensions
        if place not in self._caches:
            self._caches[place] = PassageCache(
                self._database, space=query.space, dimensions=dimensions, threads=self._threads
            )
        return self._caches[place]


def _passing(
    query: Query, found: Sequence[tuple[int, float]], session: Session
) -> list[tuple[int, float]]:
    """Return those whose documents a filter lets through, in their order."""
    asked = (
        select(PassageRow.id)
        .join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        .where(PassageRow.id.in_([number for number, _ in found]))
        .where(*conditions(query.filter, "sqlite"))
    )
    passing = set(session.scalars(asked))
    return [(number, score) for number, score in found if number in passing]


def _matching(query: Query, session: Session) -> IntArray:
    """Return the keys of the documents that a filter lets through."""
    asked = select(DocumentRow.key).where(*conditions(query.filter, "sqlite"))
    if query.collection is not None:
        asked = asked.where(DocumentRow.collection == query.collection)
    return np.array(session.scalars(asked).all(), np.int64)
