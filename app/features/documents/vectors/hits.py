"""From passages that were found to what is told of them."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.features.documents.tables import DocumentRow, PassageRow
from app.features.documents.vectors.base import Hit


def read_hits(session: Session, found: Sequence[tuple[int, float]]) -> list[Hit]:
    """Return the hits of passages, by id and score, in their order; those that are gone lack."""
    asked = (
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
        .where(PassageRow.id.in_([passage_id for passage_id, _ in found]))
    )
    rows = {row.pop("passage_id"): row for row in map(dict, session.execute(asked).mappings())}
    # A distance of 0 below 0 is -0.0, which JSON would show.
    return [Hit(**rows[number], score=score + 0.0) for number, score in found if number in rows]
