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
# Removed rows cost time in every search; moving the others costs time once.
MAX_REMOVED_SHARE = 0.25
# Copying so few rows together is quicker than comparing all.
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

    `add` and `remove` are for one thread at a time; `best` may run in others meanwhile: it sees
    the rows that there were when it began.
    """

    def __init__(self, dimensions: int) -> None:
        self._room = _make_room(0, dimensions)
        self._rows = self._room
        self._removed = 0

    @property
    def size_bytes(self) -> int:
        """Memory of all rows; spare room has been asked for, but never touched."""
        return sum(column.nbytes for column in self._rows.columns())

    def add(self, passages: Passages) -> None:
        """Append rows, whose ids are larger than all others."""
        before, after = len(self._rows), len(self._rows) + len(passages)
        if after > len(self._room):
            self._move(self._rows, after)
        for column, new in zip(self._room.columns(), passages.columns(), strict=True):
            column[before:after] = new
        self._rows = self._room[:after]

    def remove(self, ids: IntArray) -> None:
        """Take rows out, by their ids; those that aren't there are passed over."""
        found = np.flatnonzero(np.isin(self._rows.ids, ids))
        self._removed += int(np.count_nonzero(self._rows.document_keys[found] != REMOVED))
        self._rows.document_keys[found] = REMOVED
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
            similarity: what the scores are; the nearer, the higher.
            collection: only its rows; None: all.
            document_keys: only rows of these documents; None: all.
            limit: of documents; fewer are returned only if there are no more.

        """
        removed = self._removed  # before the rows: a move puts it to 0 for new ones
        rows = self._rows
        if not removed and collection is None and document_keys is None:
            wanted: IntArray | slice = slice(None)  # a tenth quicker than a list of all
            scores = similarities(rows.vectors, query, similarity)
        else:
            wanted = _wanted(rows, collection, document_keys)
            if len(wanted) <= len(rows) * MAX_GATHERED_SHARE:
                scores = similarities(rows.vectors[wanted], query, similarity)
            else:
                scores = similarities(rows.vectors, query, similarity)[wanted]
        chosen = _best_of_each(scores, rows.document_keys[wanted], limit)
        return list(zip(rows.ids[wanted][chosen].tolist(), scores[chosen].tolist(), strict=True))

    def _move(self, passages: Passages, rows: int) -> None:
        """Put these rows into new room for so many, and more; searches that run keep the old."""
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


def _wanted(rows: Passages, collection: int | None, document_keys: IntArray | None) -> IntArray:
    """Return the places of the rows that may be found."""
    is_wanted = rows.document_keys != REMOVED
    if collection is not None:
        is_wanted &= rows.collections == collection
    if document_keys is not None:
        is_wanted &= np.isin(rows.document_keys, document_keys)
    return np.flatnonzero(is_wanted)


def _best_of_each(scores: FloatArray, document_keys: IntArray, limit: int) -> IntArray:
    """Return the places of the best score of each document, the best first.

    Documents of equal score are in the order of their keys.
    """
    count = limit
    while True:
        # Twice as many as are wanted suffice, unless documents have many passages that fit.
        count = min(2 * count, len(scores))
        if count == 0:
            return np.empty(0, np.int64)
        least = np.partition(scores, -count)[-count]
        top = np.flatnonzero(scores >= least)
        top = top[np.lexsort((document_keys[top], -scores[top]))]
        _, first = np.unique(document_keys[top], return_index=True)
        if len(first) >= limit or count == len(scores):
            return top[np.sort(first)[:limit]]
