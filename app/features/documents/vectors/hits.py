"""Reads the documents of the passages that a search has found."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.features.documents.tables import DocumentRow, PassageRow
from app.features.documents.vectors.base import Hit


def read_hits(session: Session, scores: Sequence[tuple[int, float]]) -> list[Hit]:
    """Return the hits of passages that still exist, given by id and score, in their order."""
    query = (
        select(
            PassageRow.id.label("passage_id"),
            PassageRow.start,
            PassageRow.end,
            DocumentRow.key.label("document_key"),
            DocumentRow.id,
            DocumentRow.collection,
            DocumentRow.text,
            DocumentRow.meta.label("metadata"),
        )
        .join(DocumentRow, DocumentRow.key == PassageRow.document_key)
        .where(PassageRow.id.in_([passage_id for passage_id, _ in scores]))
    )
    rows = {row.pop("passage_id"): row for row in map(dict, session.execute(query).mappings())}
    # A distance of 0 becomes a score of -0.0, which JSON would show; adding 0.0 makes it 0.0.
    return [
        Hit(**rows[passage_id], score=score + 0.0)
        for passage_id, score in scores
        if passage_id in rows
    ]
