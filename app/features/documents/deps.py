"""Whose documents and jobs a request is about."""

from typing import Annotated

from fastapi import Depends

from app.features.documents.collections import CollectionScope
from app.http.guard import CallerDep


async def get_collection_scope(caller: CallerDep) -> CollectionScope:
    """Return the collection of the caller, and whether it sees others."""
    return CollectionScope.of(caller)


CollectionDep = Annotated[CollectionScope, Depends(get_collection_scope)]
