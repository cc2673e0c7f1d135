"""Whose documents and jobs a caller works on."""

from dataclasses import dataclass
from typing import Self

from app.core.callers import Caller, Scope

# Of callers without a stored key: everybody under AUTH=off, and whoever has ADMIN_KEY.
NOBODYS = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionScope:
    """The collection that a caller writes to, which is its key's; it reads that, or as admin all.

    Where an id exists in several collections, the caller's own goes first.
    """

    collection: int
    sees_all: bool

    @classmethod
    def of(cls, caller: Caller) -> Self:
        """Return a caller's scope."""
        return cls(collection=caller.key_id or NOBODYS, sees_all=caller.may(Scope.ADMIN))

    @property
    def seen(self) -> int | None:
        """The one collection that the caller sees; None: all."""
        return None if self.sees_all else self.collection
