"""The interface of an index of vectors: one search."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.engines.base import FloatArray
from app.engines.vector_rules import Similarity
from app.features.documents.vectors.filters import Filter


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """The vector to search for, and among which documents."""

    vector: FloatArray  # (dimensions,), of length 1 for cosine
    space: str  # model, version and edition: only vectors of one space can be compared
    collection: int | None = None  # None: all
    filter: Filter = ()
    limit: int = 10
    similarity: Similarity = Similarity.COSINE


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A document that was found, and its passage that is nearest to the query."""

    document_key: int
    id: str
    collection: int
    text: str  # of the whole document
    metadata: Mapping[str, Any]
    start: int  # of the passage, in characters of the text
    end: int
    score: float  # of passage and query, the nearer the higher; see `Similarity`


class VectorIndex(Protocol):
    """Finds the documents whose passages are nearest to a query."""

    async def search(self, query: Query) -> list[Hit]:
        """Return the best passage of each document, the best first.

        There are fewer hits than the query's limit only if fewer documents match.

        Raises:
            DatabaseUnavailableError: it doesn't answer.
            OverloadedError: too many searches wait.

        """
        ...
