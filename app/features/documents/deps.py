"""Dependencies of the routes of documents and jobs."""

from typing import Annotated

from fastapi import Depends

from app.features.documents.collections import CollectionScope
from app.features.documents.opening import DocumentsPart
from app.http.deps import part
from app.http.guard import CallerDep


async def get_collection_scope(caller: CallerDep) -> CollectionScope:
    """Return the caller's collection, and whether it sees others."""
    return CollectionScope.of(caller)


CollectionDep = Annotated[CollectionScope, Depends(get_collection_scope)]
PartDep = Annotated[DocumentsPart, Depends(part(DocumentsPart))]
