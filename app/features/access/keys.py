"""API keys: made, listed, revoked, and told from what is none."""

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
from app.features.access.known_keys import KnownKeys
from app.features.access.limits.limit import MAX_AMOUNT, parse
from app.features.access.repository import ApiKey, KeyRepository, NewApiKey
from app.features.access.schemas import CONTROL_CHARACTERS, MAX_NAME_CHARS
from app.settings import MIN_SECRET_CHARS

log = logging.getLogger(__name__)

# Recognisable in a log or a repository, for people and for secret scanners.
BRAND = "mlk"
PREFIX_BYTES = 6
SECRET_BYTES = 32  # 256 bits: a plain SHA-256 is as good as a slow hash, there is nothing to guess
KEY_FORMAT = re.compile(rf"({BRAND}_[0-9a-f]{{{2 * PREFIX_BYTES}}})_([A-Za-z0-9_-]{{43}})")
# Half a character, as a command's argument in another encoding has it, can't be stored either.
NAME_FORMAT = re.compile(rf"[^{CONTROL_CHARACTERS}\ud800-\udfff]{{1,{MAX_NAME_CHARS}}}")
# What an unknown key is compared with, so that it takes as long as a known one.
NO_HASH = "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedKey:
    """A key to be made."""

    name: str
    scopes: Sequence[Scope]
    limit: str | None = None  # as `app.features.access.limits.limit.parse` reads it
    tokens_per_day: int | None = None
    lifetime: timedelta | None = None  # None: for ever


class WantedKeyError(ValueError):
    """A key can't be made as it is wanted.

    Args:
        field: of `WantedKey`, which is to be changed.
        said: why; it doesn't repeat the value.

    """

    def __init__(self, field: str, said: str) -> None:
        super().__init__(said)
        self.field = field


class KeyService:
    """Makes and verifies keys.

    Args:
        database: where they are stored.
        admin_key: a secret that is always an admin's key; None: there is none.
        cache_s: for how long a verdict is believed; a revocation takes effect within it.
        stale_s: for how long it is believed while the database doesn't answer.
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
        self._known = KnownKeys(database, cache_s=cache_s, stale_s=stale_s, clock=clock)

    async def create(self, wanted: WantedKey) -> tuple[ApiKey, str]:
        """Store a new key; return it, and its text, which is never to be had again.

        Raises:
            WantedKeyError: its name, limit or quota can't be used.
            DatabaseUnavailableError: it can't be stored.

        """
        _check(wanted)
        prefix = f"{BRAND}_{secrets.token_hex(PREFIX_BYTES)}"
        text = f"{prefix}_{secrets.token_urlsafe(SECRET_BYTES)}"
        now = datetime.now(UTC)
        new = NewApiKey(
            name=wanted.name,
            prefix=prefix,
            hash=_hash(text),
            scopes=tuple(dict.fromkeys(wanted.scopes)),
            limit=wanted.limit,
            tokens_per_day=wanted.tokens_per_day,
            created_at=now,
            expires_at=now + wanted.lifetime if wanted.lifetime else None,
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
        """Say whether anybody has a key that opens something."""
        now = datetime.now(UTC)
        return await self._database.read(lambda session: KeyRepository(session).has_valid(now))

    async def revoke(self, key_id: int) -> None:
        """Revoke a key; other processes hear of it within `cache_s`.

        Raises:
            KeyNotFoundError: there is none with this id.

        """
        now = datetime.now(UTC)
        found = await self._database.run(lambda session: KeyRepository(session).revoke(key_id, now))
        if not found:
            raise KeyNotFoundError
        self._known.outdate(key_id)
        log.info("key_revoked", extra={"key_id": key_id})

    def is_admin_like(self, text: str) -> bool:
        """Say whether the admin's key could be this text, so that it may be a guess."""
        is_long = len(text) >= MIN_SECRET_CHARS
        return self._admin_hash is not None and is_long and not KEY_FORMAT.fullmatch(text)

    def is_admin(self, text: str) -> bool:
        """Say whether this is the admin's key."""
        return self._admin_hash is not None and hmac.compare_digest(_hash(text), self._admin_hash)

    async def verify(self, text: str, *, in_turn: bool = False) -> Caller:
        """Return whose key this is.

        Args:
            text: as it was sent.
            in_turn: one after another, if the database must be asked of a key that is not known.

        Raises:
            KeyEndedError: it was valid once.
            UnauthorizedError: it is no key.
            DatabaseUnavailableError: nothing is known of it, and the database doesn't answer, or
                with `in_turn` not in time.

        """
        if self.is_admin(text):
            return Caller(name="admin", scopes=frozenset({Scope.ADMIN}))
        parts = KEY_FORMAT.fullmatch(text)
        key = await self._known.find(parts[1], in_turn=in_turn) if parts else None
        is_right = hmac.compare_digest(_hash(text), key.hash if key else NO_HASH)
        if key is None or not is_right:
            raise UnauthorizedError
        if not key.is_valid(datetime.now(UTC)):
            raise KeyEndedError
        return Caller(
            name=key.name,
            key_id=key.id,
            scopes=frozenset(map(Scope, key.scopes)),
            limit=key.limit,
            tokens_per_day=key.tokens_per_day,
        )


def _check(wanted: WantedKey) -> None:
    if not NAME_FORMAT.fullmatch(wanted.name):
        said = f"from 1 to {MAX_NAME_CHARS} characters, without control characters"
        raise WantedKeyError("name", said)
    if wanted.limit is not None:
        try:
            parse(wanted.limit)
        except ValueError as bad:
            raise WantedKeyError("limit", str(bad)) from None
    if wanted.tokens_per_day is not None and not 1 <= wanted.tokens_per_day <= MAX_AMOUNT:
        raise WantedKeyError("tokens_per_day", f"from 1 to {MAX_AMOUNT}")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
