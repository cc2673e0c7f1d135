"""Search in PostgreSQL: pgvector's HNSW index, and a full comparison where that finds too few."""

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

# Candidates that the index looks at: benchmarks/SHOWS.md has the recall that it gives.
EF_SEARCH = 100
MAX_EF_SEARCH = 1_000  # pgvector's own bound
# Passages that the index goes through for a filter, before comparing all that match is quicker.
MAX_SCAN_TUPLES = 20_000
# Documents of a collection that are all compared: the index would go through those of others.
SMALL = 1_000
PRODUCT = "<#>"
OPERATORS = {
    Similarity.COSINE: PRODUCT,  # of vectors of length 1
    Similarity.DOT: PRODUCT,
    Similarity.EUCLIDEAN: "<->",
    Similarity.MANHATTAN: "<+>",
}
# Of this transaction alone; by statement, because poolers refuse other ways.
SCAN = text(
    "SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true),"
    " set_config('hnsw.ef_search', :candidates, true),"
    " set_config('hnsw.max_scan_tuples', :most, true)"
)
# It takes longer than what it speeds up.
WITHOUT_JIT = text("SELECT set_config('jit', 'off', true)")


class PgVectorIndex:
    """Asks PostgreSQL. Vectors of other dimensions than the index's are all compared.

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
    # The index holds products; distances are compared one by one.
    is_indexed = OPERATORS[query.similarity] == PRODUCT
    found = _approximately(session, query) if is_indexed and not _is_small(session, query) else None
    if found is None:
        found = [(row.id, -row.distance) for row in session.execute(_exactly(query))]
    return read_hits(session, found)


def _is_small(session: Session, query: Query) -> bool:
    """Say whether the collection has so few documents that comparing them all is quickest."""
    if query.collection is None:
        return False
    some = select(DocumentRow.key).where(DocumentRow.collection == query.collection)
    counted = select(func.count()).select_from(some.limit(SMALL + 1).subquery())
    return (session.scalar(counted) or 0) <= SMALL


def _approximately(session: Session, query: Query) -> list[tuple[int, float]] | None:
    """Return passages and scores; None if the index alone finds too few."""
    # Twice as many passages as documents suffice, unless many passages of a document fit.
    wanted = 2 * query.limit
    while True:
        candidates = min(max(wanted, EF_SEARCH), MAX_EF_SEARCH)
        session.execute(SCAN, {"candidates": str(candidates), "most": str(MAX_SCAN_TUPLES)})
        passages = session.execute(_nearest(query).limit(wanted)).all()
        if len(passages) < wanted:
            return None
        best: dict[int, tuple[int, float]] = {}
        for row in sorted(passages, key=lambda row: (row.distance, row.document_key)):
            best.setdefault(row.document_key, (row.id, -row.distance))
        if len(best) >= query.limit:
            return list(best.values())[: query.limit]
        wanted *= 4


def _nearest(query: Query) -> Select[int, int, float]:
    """Return what an index can answer, passage by passage, about in order."""
    vector = cast(PassageRow.vector, VECTOR(len(query.vector)))  # as the index has it
    distance = _distance(vector, query)
    asked = select(PassageRow.id, PassageRow.document_key, distance).where(*_of_space(query))
    if query.collection is not None:
        asked = asked.where(PassageRow.collection == query.collection)
    if query.filter:
        asked = asked.join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        asked = asked.where(*conditions(query.filter, "postgresql"))
    return asked.order_by(distance)


def _exactly(query: Query) -> Select[Any, Any, Any]:
    """Return what compares all passages that match, and has the best one of each document."""
    distance = _distance(PassageRow.vector, query)  # without the cast no index has it
    best = (
        select(PassageRow.id, PassageRow.document_key, distance)
        .join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        .where(*_of_space(query), *conditions(query.filter, "postgresql"))
        .ext(distinct_on(PassageRow.document_key))
        .order_by(PassageRow.document_key, distance, PassageRow.id)
    )
    if query.collection is not None:
        # The documents' index has it.
        best = best.where(DocumentRow.collection == query.collection)
    found = best.subquery()
    return select(found).order_by(found.c.distance, found.c.document_key).limit(query.limit)


def _distance(vector: SQLColumnExpression[Any], query: Query) -> ColumnElement[float]:
    """Return the negative inner product, or the distance: the nearer, the smaller."""
    asked = literal(query.vector, VECTOR(len(query.vector)))
    operator = OPERATORS[query.similarity]
    return vector.op(operator, return_type=Double())(asked).label("distance")


def _of_space(query: Query) -> list[ColumnElement[bool]]:
    return [PassageRow.space == query.space, PassageRow.dimensions == len(query.vector)]
