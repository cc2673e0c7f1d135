"""Search in PostgreSQL: pgvector's HNSW index, and an exact search where that finds too few."""

from functools import partial
from typing import Any

from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    ColumnElement,
    Double,
    Select,
    SQLColumnExpression,
    cast,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from app.db.session import Database
from app.engines.vector_rules import Similarity
from app.features.documents.tables import DocumentRow, PassageRow
from app.features.documents.vectors.base import Hit, Query
from app.features.documents.vectors.filters import conditions
from app.features.documents.vectors.hits import read_hits

# Candidates that the index visits; for the recall see benchmarks/SHOWS.md.
EF_SEARCH = 100
MAX_EF_SEARCH = 1_000  # pgvector's own bound
# Passages that the index visits for a filter; beyond it an exact search is faster.
MAX_SCAN_TUPLES = 20_000
# Up to this many documents of a collection are searched exactly: the index would visit those of
# other collections too.
SMALL = 1_000
PRODUCT = "<#>"
OPERATORS = {
    Similarity.COSINE: PRODUCT,  # of vectors of length 1
    Similarity.DOT: PRODUCT,
    Similarity.EUCLIDEAN: "<->",
    Similarity.MANHATTAN: "<+>",
}
# For this transaction only; by statement, because poolers refuse connection options.
SCAN = text(
    "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),"
    " set_config('hnsw.ef_search', :candidates, true),"
    " set_config('hnsw.max_scan_tuples', :most, true)"
)
# Compiling takes longer than it saves.
WITHOUT_JIT = text("SELECT set_config('jit', 'off', true)")


class PgVectorIndex:
    """Searches in PostgreSQL. Vectors of other dimensions than the index's are searched exactly.

    Args:
        database: PostgreSQL with pgvector.

    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def search(self, query: Query) -> list[Hit]:
        """Return the best passage of each document, the best first; see `VectorIndex`."""
        return await self._database.read(partial(_search, query))


def _search(query: Query, session: Session) -> list[Hit]:
    session.execute(WITHOUT_JIT)
    # The index holds inner products; for distances the search is exact.
    is_indexed = OPERATORS[query.similarity] == PRODUCT
    is_approximate = is_indexed and not _is_small(session, query)
    scores = _search_index(session, query) if is_approximate else None
    if scores is None:
        scores = [(row.id, -row.distance) for row in session.execute(_exact_search(query))]
    return read_hits(session, scores)


def _is_small(session: Session, query: Query) -> bool:
    """Say whether the collection is so small that an exact search is fastest."""
    if query.collection is None:
        return False
    keys = select(DocumentRow.key).where(DocumentRow.collection == query.collection)
    count = select(func.count()).select_from(keys.limit(SMALL + 1).subquery())
    return (session.scalar(count) or 0) <= SMALL


def _search_index(session: Session, query: Query) -> list[tuple[int, float]] | None:
    """Return passages and scores; None if the index alone finds too few."""
    # Twice as many passages as documents are enough, unless documents have many that match.
    count = 2 * query.limit
    while True:
        candidates = min(max(count, EF_SEARCH), MAX_EF_SEARCH)
        session.execute(SCAN, {"candidates": str(candidates), "most": str(MAX_SCAN_TUPLES)})
        passages = session.execute(_nearest(query).limit(count)).all()
        if len(passages) < count:
            return None
        best: dict[int, tuple[int, float]] = {}
        for row in sorted(passages, key=lambda row: (row.distance, row.document_key)):
            best.setdefault(row.document_key, (row.id, -row.distance))
        if len(best) >= query.limit:
            return list(best.values())[: query.limit]
        count *= 4


def _nearest(query: Query) -> Select[int, int, float]:
    """Return a query that an index can answer: passages, approximately in order."""
    vector = cast(PassageRow.vector, VECTOR(len(query.vector)))  # as the index has it
    distance = _distance(vector, query)
    statement = select(PassageRow.id, PassageRow.document_key, distance).where(*_of_space(query))
    if query.collection is not None:
        statement = statement.where(PassageRow.collection == query.collection)
    if query.filter:
        statement = statement.join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        statement = statement.where(*conditions(query.filter, "postgresql"))
    return statement.order_by(distance)


def _exact_search(query: Query) -> Select[Any, Any, Any]:
    """Return a query that compares all matching passages and selects the best of each document."""
    distance = _distance(PassageRow.vector, query)  # without the cast, so that no index is used
    best = (
        select(PassageRow.id, PassageRow.document_key, distance)
        .join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        .where(*_of_space(query), *conditions(query.filter, "postgresql"))
        .ext(distinct_on(PassageRow.document_key))
        .order_by(PassageRow.document_key, distance, PassageRow.id)
    )
    if query.collection is not None:
        # By the documents' index.
        best = best.where(DocumentRow.collection == query.collection)
    passages = best.subquery()
    return (
        select(passages).order_by(passages.c.distance, passages.c.document_key).limit(query.limit)
    )


def _distance(vector: SQLColumnExpression[Any], query: Query) -> ColumnElement[float]:
    """Return the negative inner product, or the distance: the nearer, the smaller."""
    vector_literal = literal(query.vector, VECTOR(len(query.vector)))
    operator = OPERATORS[query.similarity]
    return vector.op(operator, return_type=Double())(vector_literal).label("distance")


def _of_space(query: Query) -> list[ColumnElement[bool]]:
    return [PassageRow.space == query.space, PassageRow.dimensions == len(query.vector)]
