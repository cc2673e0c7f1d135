"""Vectors in memory: added, removed and compared with a query."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.engines.base import FloatArray
from app.engines.vector_rules import Similarity
from app.features.documents.vectors.similarity import similarities

IntArray = npt.NDArray[np.int64]

MIN_ROWS = 1_024
GROWTH = 1.5  # so that a row is copied twice on average, however many come after it
# Removed rows slow down every search; compacting takes time once.
MAX_REMOVED_SHARE = 0.25
# Up to this share, copying the chosen rows together is faster than comparing all.
MAX_GATHERED_SHARE = 0.2
REMOVED = -1  # instead of a document's key


@dataclass(frozen=True, slots=True, kw_only=True)
class Passages:
    """Columns of equal length, in the order of the ids, which only grow."""

    ids: IntArray
    document_keys: IntArray
    collections: IntArray
    vectors: FloatArray  # (rows, dimensions), each of length 1 for cosine

    def columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        """Return all of them."""
        return self.ids, self.document_keys, self.collections, self.vectors

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | IntArray) -> "Passages":
        ids, keys, collections = self.ids[rows], self.document_keys[rows], self.collections[rows]
        return Passages(
            ids=ids, document_keys=keys, collections=collections, vectors=self.vectors[rows]
        )


class Matrix:
    """The vectors of one space.

    Only one thread at a time may call `add` and `remove`. `best` may run in other threads
    meanwhile: it uses the rows that existed when it began.
    """

    def __init__(self, dimensions: int) -> None:
        self._room = _make_room(0, dimensions)
        self._rows = self._room
        self._removed = 0

    @property
    def size_bytes(self) -> int:
        """Memory of all rows, without spare room: that is allocated, but not touched."""
        return sum(column.nbytes for column in self._rows.columns())

    def add(self, passages: Passages) -> None:
        """Append rows, whose ids must be larger than all others."""
        before, after = len(self._rows), len(self._rows) + len(passages)
        if after > len(self._room):
            self._move(self._rows, after)
        for column, new in zip(self._room.columns(), passages.columns(), strict=True):
            column[before:after] = new
        self._rows = self._room[:after]

    def remove(self, ids: IntArray) -> None:
        """Remove rows by their ids; unknown ids are ignored."""
        indexes = np.flatnonzero(np.isin(self._rows.ids, ids))
        self._removed += int(np.count_nonzero(self._rows.document_keys[indexes] != REMOVED))
        self._rows.document_keys[indexes] = REMOVED
        if self._removed > len(self._rows) * MAX_REMOVED_SHARE:
            kept = self._rows[np.flatnonzero(self._rows.document_keys != REMOVED)]
            self._move(kept, len(kept))
            self._removed = 0

    def best(
        self,
        query: FloatArray,
        *,
        similarity: Similarity = Similarity.COSINE,
        collection: int | None,
        document_keys: IntArray | None,
        limit: int,
    ) -> list[tuple[int, float]]:
        """Return id and score of the best row of each document, the best first.

        Args:
            query: (dimensions,), of length 1 for cosine, as the rows are.
            similarity: which scores; the nearer, the higher.
            collection: only its rows; None: all.
            document_keys: only rows of these documents; None: all.
            limit: of documents; fewer are returned only if no more match.

        """
        # Read before the rows, since compacting replaces them and then sets it to 0.
        removed = self._removed
        rows = self._rows
        if not removed and collection is None and document_keys is None:
            chosen: IntArray | slice = slice(None)  # a tenth faster than an array of all indexes
            scores = similarities(rows.vectors, query, similarity)
        else:
            chosen = _choose(rows, collection, document_keys)
            if len(chosen) <= len(rows) * MAX_GATHERED_SHARE:
                scores = similarities(rows.vectors[chosen], query, similarity)
            else:
                scores = similarities(rows.vectors, query, similarity)[chosen]
        best = _best_of_each(scores, rows.document_keys[chosen], limit)
        return list(zip(rows.ids[chosen][best].tolist(), scores[best].tolist(), strict=True))

    def _move(self, passages: Passages, rows: int) -> None:
        """Copy these rows into new arrays with spare room; running searches keep the old ones."""
        dimensions = passages.vectors.shape[1]
        self._room = _make_room(max(int(rows * GROWTH), MIN_ROWS), dimensions)
        for column, old in zip(self._room.columns(), passages.columns(), strict=True):
            column[: len(passages)] = old
        self._rows = self._room[: len(passages)]


def _make_room(rows: int, dimensions: int) -> Passages:
    return Passages(
        ids=np.empty(rows, np.int64),
        document_keys=np.empty(rows, np.int64),
        collections=np.empty(rows, np.int64),
        vectors=np.empty((rows, dimensions), np.float32),
    )


def _choose(rows: Passages, collection: int | None, document_keys: IntArray | None) -> IntArray:
    """Return the indexes of the rows that match."""
    is_chosen = rows.document_keys != REMOVED
    if collection is not None:
        is_chosen &= rows.collections == collection
    if document_keys is not None:
        is_chosen &= np.isin(rows.document_keys, document_keys)
    return np.flatnonzero(is_chosen)


def _best_of_each(scores: FloatArray, document_keys: IntArray, limit: int) -> IntArray:
    """Return the index of the best score of each document, the best first.

    Documents with equal scores are in the order of their keys.
    """
    count = limit
    while True:
        # Twice the limit is enough, unless documents have many passages that match.
        count = min(2 * count, len(scores))
        if count == 0:
            return np.empty(0, np.int64)
        least = np.partition(scores, -count)[-count]
        top = np.flatnonzero(scores >= least)
        top = top[np.lexsort((document_keys[top], -scores[top]))]
        _, first = np.unique(document_keys[top], return_index=True)
        if len(first) >= limit or count == len(scores):
            return top[np.sort(first)[:limit]]
