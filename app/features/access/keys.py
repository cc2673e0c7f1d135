"""API keys: created, listed, revoked and verified."""

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.core.callers import Caller, Scope
from app.db.session import Database
from app.errors import KeyEndedError, KeyNotFoundError, UnauthorizedError
from app.features.access.key_cache import KeyCache
from app.features.access.limits.limit import MAX_AMOUNT, parse
from app.features.access.repository import ApiKey, KeyRepository, NewApiKey
from app.features.access.schemas import CONTROL_CHARACTERS, MAX_NAME_CHARS
from app.settings import MIN_SECRET_CHARS

log = logging.getLogger(__name__)

# Recognisable in a log or a repository, for people and for secret scanners.
BRAND = "mlk"
PREFIX_BYTES = 6
SECRET_BYTES = 32  # 256 bits: too many to guess, so a plain SHA-256 is as good as a slow hash
KEY_FORMAT = re.compile(rf"({BRAND}_[0-9a-f]{{{2 * PREFIX_BYTES}}})_([A-Za-z0-9_-]{{43}})")
# A lone surrogate, which a command's argument in another encoding becomes, can't be stored.
NAME_FORMAT = re.compile(rf"[^{CONTROL_CHARACTERS}\ud800-\udfff]{{1,{MAX_NAME_CHARS}}}")
# Unknown keys are compared with this, so that verifying them takes as long as known ones.
NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySpec:
    """A key to be made."""

    name: str
    scopes: Sequence[Scope]
    limit: str | None = None  # as `app.features.access.limits.limit.parse` reads it
    tokens_per_day: int | None = None
    lifetime: timedelta | None = None  # None: for ever


class KeySpecError(ValueError):
    """A key can't be made like this.

    Args:
        field: of `KeySpec`, which has to be changed.
        reason: why; it doesn't repeat the value.

    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


class KeyService:
    """Makes and verifies keys.

    Args:
        database: where they are stored.
        admin_key: a secret that is always an admin's key; None: there is none.
        cache_s: for how long a looked-up key is cached; a revocation takes effect within it.
        stale_s: for how long the cached key is used while the database doesn't answer.
        clock: monotonic seconds.

    """

    def __init__(
        self,
        database: Database,
        *,
        admin_key: str | None,
        cache_s: float,
        stale_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._admin_hash = _hash(admin_key) if admin_key else None
        self._cache = KeyCache(database, cache_s=cache_s, stale_s=stale_s, clock=clock)

    async def create(self, spec: KeySpec) -> tuple[ApiKey, str]:
        """Store a new key; return it with its text, which isn't stored.

        Raises:
            KeySpecError: its name, limit or quota can't be used.
            DatabaseUnavailableError: it can't be stored.

        """
        _check(spec)
        prefix = f"{BRAND}_{secrets.token_hex(PREFIX_BYTES)}"
        text = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
        now = datetime.now(UTC)
        new = NewApiKey(
            name=spec.name,
            prefix=prefix,
            hash=_hash(text),
            scopes=tuple(dict.fromkeys(spec.scopes)),
            limit=spec.limit,
            tokens_per_day=spec.tokens_per_day,
            created_at=now,
            expires_at=now + spec.lifetime if spec.lifetime else None,
        )
        key = await self._database.run(lambda session: KeyRepository(session).add(new))
        log.info("key_created", extra={"key_id": key.id})
        return key, text

    async def list(self, *, before_id: int | None, limit: int) -> Sequence[ApiKey]:
        """Return stored keys, newest first."""
        return await self._database.read(
            lambda session: KeyRepository(session).list(before_id=before_id, limit=limit)
        )

    async def has_valid(self) -> bool:
        """Say whether any stored key is valid."""
        now = datetime.now(UTC)
        return await self._database.read(lambda session: KeyRepository(session).has_valid(now))

    async def revoke(self, key_id: int) -> None:
        """Revoke a key; other processes refuse it within `cache_s`.

        Raises:
            KeyNotFoundError: there is none with this id.

        """
        now = datetime.now(UTC)
        is_revoked = await self._database.run(
            lambda session: KeyRepository(session).revoke(key_id, now)
        )
        if not is_revoked:
            raise KeyNotFoundError
        self._cache.invalidate(key_id)
        log.info("key_revoked", extra={"key_id": key_id})

    def is_admin_like(self, text: str) -> bool:
        """Say whether this text could be a guess at the admin's key."""
        is_long = len(text) >= MIN_SECRET_CHARS
        return self._admin_hash is not None and is_long and not KEY_FORMAT.fullmatch(text)

    def is_admin(self, text: str) -> bool:
        """Say whether this is the admin's key."""
        return self._admin_hash is not None and hmac.compare_digest(_hash(text), self._admin_hash)

    def is_known_admin(self, text: str) -> bool:
        """Say whether this is an admin's key, as far as that is known without a look-up."""
        if self.is_admin(text):
            return True
        parts = KEY_FORMAT.fullmatch(text)
        key = self._cache.peek(parts[1]) if parts else None
        return (
            key is not None
            and Scope.ADMIN in key.scopes
            and hmac.compare_digest(_hash(text), key.hash)
            and key.is_valid(datetime.now(UTC))
        )

    async def verify(self, text: str, *, in_turn: bool = False) -> Caller:
        """Return whose key this is.

        Args:
            text: as it was sent.
            in_turn: look up keys that aren't known to be stored one after another.

        Raises:
            KeyEndedError: it was revoked or has expired.
            UnauthorizedError: it is no key.
            DatabaseUnavailableError: it isn't cached, and the database doesn't answer; with
                `in_turn` also when its turn doesn't come in time.

        """
        if self.is_admin(text):
            return Caller(name="admin", scopes=frozenset({Scope.ADMIN}))
        parts = KEY_FORMAT.fullmatch(text)
        key = await self._cache.find(parts[1], in_turn=in_turn) if parts else None
        is_match = hmac.compare_digest(_hash(text), key.hash if key else NO_HASH)
        if key is None or not is_match:
            raise UnauthorizedError
        return _caller(key)

    async def owner(self, key_id: int) -> Caller:
        """Return whose key this is, by its id.

        Raises:
            KeyEndedError: it was revoked or has expired.
            UnauthorizedError: there is no such key.
            DatabaseUnavailableError: the database doesn't answer.

        """
        key = await self._database.read(lambda session: KeyRepository(session).by_id(key_id))
        if key is None:
            raise UnauthorizedError
        return _caller(key)


def _caller(key: ApiKey) -> Caller:
    """Return the caller with a key.

    Raises:
        KeyEndedError: it was revoked or has expired.

    """
    if not key.is_valid(datetime.now(UTC)):
        raise KeyEndedError
    return Caller(
        name=key.name,
        key_id=key.id,
        scopes=frozenset(map(Scope, key.scopes)),
        limit=key.limit,
        tokens_per_day=key.tokens_per_day,
    )


def _check(spec: KeySpec) -> None:
    if not NAME_FORMAT.fullmatch(spec.name):
        reason = f"from 1 to {MAX_NAME_CHARS} characters, without control characters"
        raise KeySpecError("name", reason)
    if spec.limit is not None:
        try:
            parse(spec.limit)
        except ValueError as bad:
            raise KeySpecError("limit", str(bad)) from None
    if spec.tokens_per_day is not None and not 1 <= spec.tokens_per_day <= MAX_AMOUNT:
        raise KeySpecError("tokens_per_day", f"from 1 to {MAX_AMOUNT}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
