"""Who sends a request, and what they may do."""

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    """What a key may do."""

    PREDICT = "predict"
    EMBED = "embed"
    CHAT = "chat"
    DOCUMENTS = "documents"
    JOBS = "jobs"
    METRICS = "metrics"
    ADMIN = "admin"  # all of them, and the keys


EVERYTHING = frozenset(Scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sends a request. Where no key is needed all are the same caller, who may do everything.

    Args:
        name: of the key; None without one.
        key_id: of the stored key; None without one.
        scopes: what the caller may do.
        limit: requests in a time, such as `100/minute`; None: the default limit.
        tokens_per_day: a quota; None: there is none.

    """

    name: str | None = None
    key_id: int | None = None
    scopes: frozenset[Scope] = EVERYTHING
    limit: str | None = None
    tokens_per_day: int | None = None

    @property
    def identity(self) -> str | None:
        """What tells this caller from others; None where no key is needed."""
        return self.name if self.key_id is None else str(self.key_id)

    def may(self, scope: Scope) -> bool:
        """Say whether a scope is granted."""
        return scope in self.scopes or Scope.ADMIN in self.scopes
