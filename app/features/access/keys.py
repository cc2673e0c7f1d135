"""API keys: made, listed and revoked in SQL, verified from memory: no request waits for it."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy.orm import Session

from app.core.callers import Caller, Scope
from app.db.session import Database
from app.errors import (
    DatabaseUnavailableError,
    KeyEndedError,
    KeyNotFoundError,
    UnauthorizedError,
)
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
MAX_REMEMBERED = 10_000
# A look at one row takes a millisecond: a database that needs so much longer doesn't answer.
PATIENCE_S = 0.25


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


@dataclass(slots=True)
class _Seen:
    """What the database said of a prefix, and when."""

    key: ApiKey | None
    at_s: float


@dataclass(frozen=True, slots=True)
class _Question:
    """What the database is being asked, and since when."""

    task: asyncio.Task[ApiKey | None]
    since_s: float


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
        self._cache_s = cache_s
        self._stale_s = stale_s
        self._clock = clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._asking: dict[str, _Question] = {}
        self._turn = asyncio.Lock()

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
        for seen in self._seen.values():
            if seen.key is not None and seen.key.id == key_id:
                seen.at_s = -self._stale_s  # so old that it is asked for again
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
        key = await self._find(parts[1], in_turn=in_turn) if parts else None
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

    async def _find(self, prefix: str, *, in_turn: bool) -> ApiKey | None:
        """Return the key with a prefix, from memory as long as that may be believed."""
        seen = self._seen.get(prefix)
        age_s = self._clock() - seen.at_s if seen else self._stale_s
        if seen and age_s < self._cache_s:
            return seen.key
        if in_turn and (seen is None or seen.key is None):
            return await self._find_in_turn(prefix)
        asked = self._ask(prefix)
        if seen is None or age_s >= self._stale_s:
            # One who leaves must not take the answer away from the others.
            return await asyncio.shield(asked.task)
        patience_s = asked.since_s + PATIENCE_S - time.monotonic()
        if not self._database.is_answering or patience_s <= 0:
            return seen.key  # or every request would wait
        await asyncio.wait({asked.task}, timeout=patience_s)
        try:
            return asked.task.result() if asked.task.done() else seen.key
        except DatabaseUnavailableError:
            return seen.key

    async def _find_in_turn(self, prefix: str) -> ApiKey | None:
        """Ask the database, or give up: made-up keys must not keep it from all the others.

        A key that wasn't looked up may be a valid one, so it isn't called wrong.
        """
        try:
            async with asyncio.timeout(PATIENCE_S), self._turn:
                return await asyncio.shield(self._ask(prefix).task)
        except TimeoutError:
            raise DatabaseUnavailableError("full") from None

    def _forget_one(self) -> None:
        """Forget an unknown prefix before any known one: anybody can make those up."""
        unknown = (prefix for prefix, seen in self._seen.items() if seen.key is None)
        del self._seen[next(unknown, next(iter(self._seen)))]

    def _ask(self, prefix: str) -> _Question:
        """Ask the database, once for all who want to know at this moment."""
        asked = self._asking.get(prefix)
        if asked is None:
            asked = _Question(asyncio.create_task(self._learn(prefix)), time.monotonic())
            self._asking[prefix] = asked
            asked.task.add_done_callback(lambda ended: self._asked(prefix, ended))
        return asked

    def _asked(self, prefix: str, ended: asyncio.Task[ApiKey | None]) -> None:
        del self._asking[prefix]
        if not ended.cancelled():
            ended.exception()  # maybe nobody waited for it; the database has logged it

    async def _learn(self, prefix: str) -> ApiKey | None:
        key = await self._database.read(partial(_by_prefix, prefix=prefix))
        self._seen[prefix] = _Seen(key, self._clock())
        self._seen.move_to_end(prefix)
        if len(self._seen) > MAX_REMEMBERED:
            self._forget_one()
        return key


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


def _by_prefix(session: Session, *, prefix: str) -> ApiKey | None:
    return KeyRepository(session).by_prefix(prefix)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
