"""The use cases of documents: add, get, list, delete."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from app.db.clock import now
from app.db.session import Database
from app.errors import DocumentNotFoundError
from app.features.documents.collections import CollectionScope
from app.features.documents.repository import Document, DocumentRepository, NewDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentPage:
    """Documents, newest first, and the key of the last one; None when no more follow."""

    documents: list[Document]
    next: int | None


class DocumentService:
    """Answers `/documents`. All methods raise DatabaseUnavailableError when it doesn't answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, documents: Sequence[NewDocument], *, scope: CollectionScope, request_id: str
    ) -> list[str]:
        """Store documents in the caller's collection, all or none, and return their ids.

        One whose id is there already is replaced.
        """
        add = partial(
            add_documents, documents=documents, collection=scope.collection, request_id=request_id
        )
        await self._database.run(add)
        return [document.id for document in documents]

    async def get(self, document_id: str, *, scope: CollectionScope) -> Document:
        """Return a document that the caller sees.

        Raises:
            DocumentNotFoundError: there is none with this id.

        """
        document = await self._database.read(partial(_get, document_id=document_id, scope=scope))
        if document is None:
            raise DocumentNotFoundError
        return document

    async def delete(self, document_id: str, *, scope: CollectionScope) -> None:
        """Delete the document that `get` returns, and its vectors.

        Raises:
            DocumentNotFoundError: there is none with this id.

        """
        if not await self._database.run(partial(_delete, document_id=document_id, scope=scope)):
            raise DocumentNotFoundError

    async def page(
        self, *, scope: CollectionScope, before_key: int | None, limit: int
    ) -> DocumentPage:
        """Return up to `limit` documents that the caller sees, after the last one of a page."""
        # One more, to know whether there is a next page.
        read = partial(_page, collection=scope.seen, before_key=before_key, limit=limit + 1)
        documents = await self._database.read(read)
        page = documents[:limit]
        return DocumentPage(documents=page, next=page[-1].key if len(documents) > limit else None)


def add_documents(
    session: Session, *, documents: Sequence[NewDocument], collection: int, request_id: str
) -> list[int]:
    """Store documents within a transaction and return their keys, in their order."""
    return DocumentRepository(session).upsert_many(
        collection, documents, request_id=request_id, now=now(session)
    )


def _get(session: Session, *, document_id: str, scope: CollectionScope) -> Document | None:
    return DocumentRepository(session).get(
        document_id, collection=scope.collection, sees_all=scope.sees_all
    )


def _delete(session: Session, *, document_id: str, scope: CollectionScope) -> bool:
    return DocumentRepository(session).delete(
        document_id, collection=scope.collection, sees_all=scope.sees_all
    )


def _page(
    session: Session, *, collection: int | None, before_key: int | None, limit: int
) -> list[Document]:
    return DocumentRepository(session).page(collection, before_key=before_key, limit=limit)
