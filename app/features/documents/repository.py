"""Documents within one transaction: stored, read, listed, deleted."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Row, Table, delete, exists, select, true
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.features.documents.tables import DocumentRow, PassageRow

TABLE: Table = DocumentRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause
PASSAGES: Table = PassageRow.__table__  # type: ignore[assignment]  # as above
IDENTITY = ["collection", "id"]
T = TypeVar("T")
# SQLite allows 32,766 parameters in a statement.
MAX_VALUES = 10_000
IS_SEARCHABLE = exists().where(PASSAGES.c.document_key == TABLE.c.key).label("is_searchable")
SHOWN = (*(column for column in TABLE.c if column.name != "request_id"), IS_SEARCHABLE)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDocument:
    """A document to be stored: its owner's id for it, its text, and what it is filtered by."""

    id: str
    text: str = field(repr=False)
    metadata: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document(NewDocument):
    """A stored document. `revision` counts changes of its text."""

    key: int
    collection: int
    revision: int
    created_at: datetime
    updated_at: datetime
    is_searchable: bool  # it has vectors, of some model


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What vectors are made of: the text that a document has in one revision."""

    key: int
    collection: int
    revision: int
    text: str = field(repr=False)


class DocumentRepository:
    """The documents, within one transaction.

    Several documents are always locked in the order of collection and id, which avoids deadlocks.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._is_sqlite = session.get_bind().dialect.name == "sqlite"

    def upsert_many(
        self, collection: int, documents: Sequence[NewDocument], *, request_id: str, now: datetime
    ) -> list[int]:
        """Store documents and return their keys, in their order.

        Where the collection has an id already, the document is replaced: with a new text its
        revision goes up and its passages go; with the same text it stays searchable.

        Args:
            collection: the owner's.
            documents: with distinct ids; their texts hold no NUL and no lone surrogate.
            request_id: of the request that sends them.
            now: stored as their times.

        """
        if not documents:
            return []
        rows = [
            {
                "collection": collection,
                "id": document.id,
                "text": document.text,
                "metadata": document.metadata,
                "revision": 1,
                "request_id": request_id,
                "created_at": now,
                "updated_at": now,
            }
            for document in sorted(documents, key=lambda document: document.id)
        ]
        keys = self._store(rows)
        # Those with the same text are locked, but not changed yet.
        unchanged = [row | {"text": ""} for row in rows if row["id"] not in keys]
        keys |= self._update_metadata(unchanged) if unchanged else {}
        return [keys[document.id] for document in documents]

    def get(self, document_id: str, *, collection: int, sees_all: bool) -> Document | None:
        """Return a document by id; the collection's own before those of other collections."""
        query = select(*SHOWN).where(TABLE.c.id == document_id, _visible(collection, sees_all))
        row = self._session.execute(query.order_by(*_own_first(collection)).limit(1)).one_or_none()
        return _document(row) if row else None

    def delete(self, document_id: str, *, collection: int, sees_all: bool) -> bool:
        """Delete the document that `get` returns, and its passages; False when there is none."""
        query = select(TABLE.c.key).where(TABLE.c.id == document_id, _visible(collection, sees_all))
        key = query.order_by(*_own_first(collection)).limit(1).scalar_subquery()
        deletion = delete(TABLE).where(TABLE.c.key == key).returning(TABLE.c.key)
        return self._session.execute(deletion).one_or_none() is not None

    def page(
        self, collection: int | None, *, before_key: int | None = None, limit: int
    ) -> list[Document]:
        """Return documents, newest first: of one collection, or of all.

        Args:
            collection: None for all.
            before_key: the last one of the page before.
            limit: how many at most.

        """
        query = select(*SHOWN).order_by(TABLE.c.key.desc()).limit(limit)
        if collection is not None:
            query = query.where(TABLE.c.collection == collection)
        if before_key is not None:
            query = query.where(TABLE.c.key < before_key)
        return [_document(row) for row in self._session.execute(query)]

    def keys_of(self, ids: Iterable[str], *, collection: int, sees_all: bool) -> dict[str, int]:
        """Return the keys of the documents that exist, by id, chosen as by `get`."""
        keys: dict[str, int] = {}
        for chunk in _chunks(dict.fromkeys(ids)):
            query = select(TABLE.c.id, TABLE.c.key).where(
                TABLE.c.id.in_(chunk), _visible(collection, sees_all)
            )
            for row in self._session.execute(query.order_by(*_own_first(collection))):
                keys.setdefault(row.id, row.key)
        return keys

    def texts(self, keys: Iterable[int]) -> dict[int, Source]:
        """Return the texts of the documents that still exist, by key."""
        sources: dict[int, Source] = {}
        columns = (TABLE.c.key, TABLE.c.collection, TABLE.c.revision, TABLE.c.text)
        for chunk in _chunks(keys):
            for row in self._session.execute(select(*columns).where(TABLE.c.key.in_(chunk))):
                sources[row.key] = Source(**row._mapping)  # noqa: SLF001 -- its public name
        return sources

    def _store(self, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Insert new documents, replace those with another text, lock the rest.

        Returns the keys of new and replaced ones by id.
        """
        insert = self._insert()
        new = insert.excluded
        upsert = insert.on_conflict_do_update(
            index_elements=IDENTITY,
            set_={
                "text": new.text,
                "metadata": new.metadata,
                "revision": TABLE.c.revision + 1,
                "request_id": new.request_id,
                "updated_at": new.updated_at,
            },
            where=TABLE.c.text != new.text,
        ).returning(TABLE.c.id, TABLE.c.key, TABLE.c.revision)
        stored = self._session.execute(upsert, rows).all()
        changed = [row.key for row in stored if row.revision > 1]
        for chunk in _chunks(changed):
            self._session.execute(delete(PASSAGES).where(PASSAGES.c.document_key.in_(chunk)))
        return {row.id: row.key for row in stored}

    def _update_metadata(self, rows: Sequence[dict[str, Any]]) -> dict[str, int]:
        """Replace all but the text of documents that exist and are locked; return their keys."""
        # One statement for all: an UPDATE would take a round trip for each.
        insert = self._insert()
        new = insert.excluded
        upsert = insert.on_conflict_do_update(
            index_elements=IDENTITY,
            set_={
                "metadata": new.metadata,
                "request_id": new.request_id,
                "updated_at": new.updated_at,
            },
        ).returning(TABLE.c.id, TABLE.c.key)
        return {row.id: row.key for row in self._session.execute(upsert, rows)}

    def _insert(self) -> postgresql.Insert | sqlite.Insert:
        return sqlite.insert(TABLE) if self._is_sqlite else postgresql.insert(TABLE)


def _visible(collection: int, sees_all: bool) -> ColumnElement[bool]:  # noqa: FBT001 -- named above
    return true() if sees_all else TABLE.c.collection == collection


def _own_first(collection: int) -> tuple[ColumnElement[Any], ...]:
    return (TABLE.c.collection == collection).desc(), TABLE.c.key


def _chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """Yield pieces that fit into one statement."""
    rest = iter(values)
    while chunk := list(islice(rest, MAX_VALUES)):
        yield chunk


def _document(row: "Row[Any]") -> Document:
    return Document(**row._mapping)  # noqa: SLF001 -- SQLAlchemy's public name for it
