"""API keys as they are stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import Row, Table, func, insert, select, update
from sqlalchemy.orm import Session

from app.features.access.tables import ApiKeyRow

TABLE: Table = ApiKeyRow.__table__  # type: ignore[assignment]  # declared as the wider FromClause


@dataclass(frozen=True, slots=True, kw_only=True)
class NewApiKey:
    """A key to be stored. It is looked up by `prefix` and verified against `hash`."""

    name: str
    prefix: str
    hash: str = field(repr=False)
    scopes: tuple[str, ...]
    limit: str | None
    tokens_per_day: int | None
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(NewApiKey):
    """A stored key."""

    id: int
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Say whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyRepository:
    """The keys, within one transaction."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def add(self, key: NewApiKey) -> ApiKey:
        """Store a key.

        Raises:
            ConflictError: by `Database.run`; a key with this prefix exists.

        """
        values = {
            "name": key.name,
            "prefix": key.prefix,
            "hash": key.hash,
            "scopes": list(key.scopes),
            "limit": key.limit,
            "tokens_per_day": key.tokens_per_day,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
        }
        return _key(self._session.execute(insert(TABLE).values(values).returning(TABLE)).one())

    def by_prefix(self, prefix: str) -> ApiKey | None:
        """Return the key with this prefix, expired and revoked ones too."""
        row = self._session.execute(select(TABLE).where(TABLE.c.prefix == prefix)).one_or_none()
        return _key(row) if row else None

    def by_id(self, key_id: int) -> ApiKey | None:
        """Return the key with this id, expired and revoked ones too."""
        row = self._session.execute(select(TABLE).where(TABLE.c.id == key_id)).one_or_none()
        return _key(row) if row else None

    def list(self, *, before_id: int | None = None, limit: int = 100) -> Sequence[ApiKey]:
        """Return keys, newest first; `before_id` is the last one of the page before."""
        query = select(TABLE).order_by(TABLE.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(TABLE.c.id < before_id)
        return [_key(row) for row in self._session.execute(query)]

    def has_valid(self, now: datetime) -> bool:
        """Say whether any key is neither revoked nor expired."""
        is_current = TABLE.c.expires_at.is_(None) | (TABLE.c.expires_at > now)
        valid = select(TABLE.c.id).where(TABLE.c.revoked_at.is_(None), is_current)
        return self._session.execute(valid.limit(1)).first() is not None

    def revoke(self, key_id: int, now: datetime) -> bool:
        """Revoke a key; False when there is none. An earlier revocation's time is kept."""
        statement = (
            update(TABLE)
            .where(TABLE.c.id == key_id)
            .values(revoked_at=func.coalesce(TABLE.c.revoked_at, now))
            .returning(TABLE.c.id)
        )
        return self._session.execute(statement).one_or_none() is not None


def _key(row: "Row[*tuple[object, ...]]") -> ApiKey:
    values = dict(row._mapping)  # noqa: SLF001 -- SQLAlchemy's public name for it
    values["scopes"] = tuple(values["scopes"])
    return ApiKey(**values)
