"""Scores of vectors in memory for a query, by the similarity that a model declares."""

import numpy as np

from app.engines.base import FloatArray
from app.engines.vector_rules import Similarity

CHUNK = 4_096  # rows at once, to bound the memory of their differences


def similarities(rows: FloatArray, query: FloatArray, similarity: Similarity) -> FloatArray:
    """Return a score of each row, (rows,): the nearer to the query, the higher.

    Args:
        rows: (rows, dimensions), of length 1 for cosine.
        query: (dimensions,), of length 1 for cosine.
        similarity: cosine and dot give the inner product, the others the negative distance.

    """
    if similarity in {Similarity.COSINE, Similarity.DOT}:
        product: FloatArray = rows @ query
        return product
    order = 1 if similarity is Similarity.MANHATTAN else 2
    scores = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        scores[part] = -np.linalg.norm(rows[part] - query, ord=order, axis=1)
    return scores
