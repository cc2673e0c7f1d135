"""Passages within one transaction: the vectors of documents, replaced as a whole."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Table, delete, func, insert, select
from sqlalchemy.orm import Session

from app.features.documents import copy
from app.features.documents.repository import Source
from app.features.documents.tables import DocumentRow, PassageRow

TABLE: Table = PassageRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause
DOCUMENTS: Table = DocumentRow.__table__  # type: ignore[assignment]  # as above
# Each column, and how COPY writes it.
FIELDS: dict[str, Callable[[Any], bytes]] = {
    "document_key": copy.bigint,
    "collection": copy.bigint,
    "space": copy.text,
    "ordinal": copy.integer,
    "start": copy.integer,
    "end": copy.integer,
    "dimensions": copy.integer,
    "vector": copy.vector,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPassage:
    """A piece of a document's text, its characters from `start` to before `end`, as a vector."""

    start: int
    end: int
    vector: npt.NDArray[np.float32] = field(repr=False)  # (dimensions,)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSpace:
    """A model in one version and edition, and how many documents have its vectors."""

    space: str
    documents: int
    passages: int


class PassageRepository:
    """The passages, within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"

    def replace_many(
        self, embedded: Sequence[tuple[Source, Sequence[NewPassage]]], space: str
    ) -> list[bool]:
        """Replace the passages that documents have in this space.

        Safe to run twice. The documents stay locked until the transaction ends.

        Args:
            embedded: texts, and the passages that were made of them.
            space: a model in one version and edition, whose vectors can be compared.

        Returns:
            For each document whether its passages were replaced; False if it was deleted or has
            another text by now.

        """
        current = self._lock([source.key for source, _ in embedded])
        is_current = [current.get(source.key) == source.revision for source, _ in embedded]
        # By key: a document that is in it twice gets the later passages.
        fresh = {
            source.key: (source, passages)
            for (source, passages), is_fresh in zip(embedded, is_current, strict=True)
            if is_fresh
        }
        self._session.execute(
            delete(TABLE).where(TABLE.c.document_key.in_(fresh), TABLE.c.space == space)
        )
        rows = [
            row
            for source, passages in fresh.values()
            for row in _rows(source, space=space, passages=passages)
        ]
        if rows:
            self._insert(rows)
        return is_current

    def spaces(self) -> list[StoredSpace]:
        """Count the vectors of each space; reads the whole table."""
        documents = func.count(TABLE.c.document_key.distinct())
        query = select(TABLE.c.space, documents, func.count()).group_by(TABLE.c.space)
        rows = self._session.execute(query.order_by(TABLE.c.space)).all()
        return [StoredSpace(space=row[0], documents=row[1], passages=row[2]) for row in rows]

    def delete_space(self, space: str, *, after: int, limit: int) -> Sequence[int]:
        """Delete the first passages of a space whose ids are over `after`; return the ids."""
        query = select(TABLE.c.id).where(TABLE.c.space == space, TABLE.c.id > after)
        ids = self._session.scalars(query.order_by(TABLE.c.id).limit(limit)).all()
        if ids:
            chosen = TABLE.c.id.between(ids[0], ids[-1]) & (TABLE.c.space == space)
            self._session.execute(delete(TABLE).where(chosen))
        return ids

    def _lock(self, keys: Sequence[int]) -> Mapping[int, int]:
        """Lock documents, in the order of `DocumentRepository`; return their revisions."""
        query = (
            select(DOCUMENTS.c.key, DOCUMENTS.c.revision)
            .where(DOCUMENTS.c.key.in_(keys))
            .order_by(DOCUMENTS.c.collection, DOCUMENTS.c.id)
            .with_for_update(key_share=True)
        )
        return {row.key: row.revision for row in self._session.execute(query)}

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        if self._is_sqlite:
            self._session.execute(insert(TABLE), rows)
            return
        # Takes a quarter of an INSERT's time, and a third of its processor time here: no number
        # becomes text.
        fields = ([FIELDS[name](row[name]) for name in FIELDS] for row in rows)
        copy.copy_into(self._session, TABLE.name, tuple(FIELDS), fields)


def _rows(source: Source, *, space: str, passages: Sequence[NewPassage]) -> list[dict[str, Any]]:
    return [
        {
            "document_key": source.key,
            "collection": source.collection,
            "space": space,
            "ordinal": ordinal,
            "start": passage.start,
            "end": passage.end,
            "dimensions": len(passage.vector),
            "vector": passage.vector,
        }
        for ordinal, passage in enumerate(passages)
    ]
