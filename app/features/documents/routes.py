"""`/documents`: storing, reading, listing and deleting documents."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.core.callers import Scope
from app.core.logs import request_id
from app.errors import DatabaseUnavailableError, DocumentNotFoundError, InvalidRequestError
from app.features.documents.deps import CollectionDep, PartDep
from app.features.documents.schemas import (
    DocumentId,
    DocumentInfo,
    DocumentList,
    DocumentsQuery,
    DocumentsRequest,
    StoredDocuments,
)
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, problems

router = APIRouter(
    prefix="/documents",
    tags=["documents"],
    route_class=JsonRoute,
    dependencies=[Depends(Guard(Scope.DOCUMENTS))],
)
STORED = (*WITH_KEY, DatabaseUnavailableError, InvalidRequestError)
ONE = problems(*STORED, DocumentNotFoundError)
NO_STORE = {"Cache-Control": "no-store"}
IdInPath = Annotated[DocumentId, Path()]


@router.post(
    "", status_code=201, summary="Store documents", responses=problems(*WITH_BODY, *STORED)
)
async def add_documents(
    body: DocumentsRequest, part: PartDep, scope: CollectionDep
) -> StoredDocuments:
    """Store documents, all or none; one whose id is there already is replaced.

    They are found by `/search` once `/embed-batch` has made them searchable. A document that is
    replaced by one with the same text stays so.
    """
    documents = [document.new() for document in body.documents]
    ids = await part.documents.add(documents, scope=scope, request_id=request_id.get())
    return StoredDocuments(ids=ids)


@router.get("", summary="List documents", responses=problems(*STORED), response_model=DocumentList)
async def list_documents(
    query: Annotated[DocumentsQuery, Query()], part: PartDep, scope: CollectionDep
) -> Response:
    """List the caller's documents with their texts, newest first; an admin's list has all."""
    page = await part.documents.page(
        scope=scope, before_key=int(query.cursor) if query.cursor else None, limit=query.limit
    )
    answer = DocumentList(
        documents=[DocumentInfo.of(document) for document in page.documents],
        next=str(page.next) if page.next else None,
    )
    # Up to 10 MB: FastAPI would validate what was just made, and write it in two steps.
    return Response(answer.model_dump_json(), media_type="application/json", headers=NO_STORE)


@router.get("/{document_id}", summary="Get a document", responses=ONE)
async def get_document(
    document_id: IdInPath, part: PartDep, scope: CollectionDep, response: Response
) -> DocumentInfo:
    """Return a document."""
    response.headers.update(NO_STORE)
    return DocumentInfo.of(await part.documents.get(document_id, scope=scope))


@router.delete(
    "/{document_id}",
    status_code=204,
    summary="Delete a document",
    responses=ONE,
)
async def delete_document(document_id: IdInPath, part: PartDep, scope: CollectionDep) -> Response:
    """Delete a document and its vectors."""
    await part.documents.delete(document_id, scope=scope)
    return Response(status_code=204)
