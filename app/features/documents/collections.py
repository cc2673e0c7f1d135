"""Which collection of documents and jobs a caller uses."""

from dataclasses import dataclass
from typing import Self

from app.core.callers import Caller, Scope

# Of callers without a stored key: all under AUTH=off, and those with ADMIN_KEY.
SHARED_COLLECTION = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionScope:
    """The collection that a caller writes to and reads, its key's; an admin reads all.

    Where an id exists in several collections, the caller's own is chosen first.
    """

    collection: int
    sees_all: bool

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """Return a caller's scope."""
        return cls(collection=caller.key_id or SHARED_COLLECTION, sees_all=caller.may(Scope.ADMIN))

    @property
    def seen(self) -> int | None:
        """The one collection that the caller sees; None: all."""
        return None if self.sees_all else self.collection
