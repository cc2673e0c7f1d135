"""A cache of stored keys, so that most requests need no SQL."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy.orm import Session

from app.db.session import Database
from app.errors import DatabaseUnavailableError
from app.features.access.repository import ApiKey, KeyRepository

MAX_ENTRIES = 10_000
# A lookup takes about a millisecond; after this the database counts as not answering.
LOOKUP_TIMEOUT_S = 0.25


@dataclass(slots=True)
class _CacheEntry:
    """The result of a lookup, and when it was read."""

    key: ApiKey | None
    read_at_s: float


@dataclass(frozen=True, slots=True)
class _Lookup:
    """A lookup that is running, and since when."""

    task: asyncio.Task[ApiKey | None]
    started_at_s: float


class KeyCache:
    """Looks keys up in the database and caches the results.

    Args:
        database: where they are stored.
        cache_s: for how long a result is used without another lookup.
        stale_s: for how long it is used while the database doesn't answer.
        clock: monotonic seconds.

    """

    def __init__(
        self, database: Database, *, cache_s: float, stale_s: float, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._cache_s = cache_s
        self._stale_s = stale_s
        self._clock = clock
        self._entries: OrderedDict[str, _CacheEntry] = OrderedDict()
        self._lookups: dict[str, _Lookup] = {}
        self._turn = asyncio.Lock()

    async def find(self, prefix: str, *, in_turn: bool) -> ApiKey | None:
        """Return the key with a prefix; None: there is none.

        Args:
            prefix: of a key's text.
            in_turn: look up keys that aren't known to be stored one after another.

        Raises:
            DatabaseUnavailableError: it isn't cached, and the database doesn't answer; with
                `in_turn` also when its turn doesn't come in time.

        """
        entry = self._entries.get(prefix)
        age_s = self._clock() - entry.read_at_s if entry else self._stale_s
        if entry and age_s < self._cache_s:
            return entry.key
        if in_turn and (entry is None or entry.key is None):
            return await self._find_in_turn(prefix)
        lookup = self._look_up(prefix)
        if entry is None or age_s >= self._stale_s:
            # Shielded, because other requests wait for the same lookup.
            return await asyncio.shield(lookup.task)
        timeout_s = lookup.started_at_s + LOOKUP_TIMEOUT_S - time.monotonic()
        if not self._database.is_answering or timeout_s <= 0:
            return entry.key  # or every request would wait
        await asyncio.wait({lookup.task}, timeout=timeout_s)
        try:
            return lookup.task.result() if lookup.task.done() else entry.key
        except DatabaseUnavailableError:
            return entry.key

    def peek(self, prefix: str) -> ApiKey | None:
        """Return the key with a prefix if it is cached, however old that is; look nothing up."""
        entry = self._entries.get(prefix)
        return entry.key if entry else None

    def invalidate(self, key_id: int) -> None:
        """Look a changed key up again at its next use."""
        for entry in self._entries.values():
            if entry.key is not None and entry.key.id == key_id:
                entry.read_at_s = -self._stale_s

    async def _find_in_turn(self, prefix: str) -> ApiKey | None:
        """Look a key up when its turn comes, or give up, to bound the load of made-up keys.

        A key that wasn't looked up may be valid, so this raises no UnauthorizedError.
        """
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S), self._turn:
                return await asyncio.shield(self._look_up(prefix).task)
        except TimeoutError:
            raise DatabaseUnavailableError("full") from None

    def _evict_one(self) -> None:
        """Evict a prefix without a key before one with a key: callers can make those up."""
        unknown = (prefix for prefix, entry in self._entries.items() if entry.key is None)
        del self._entries[next(unknown, next(iter(self._entries)))]

    def _look_up(self, prefix: str) -> _Lookup:
        """Return the running lookup of a prefix, or start one."""
        lookup = self._lookups.get(prefix)
        if lookup is None:
            lookup = _Lookup(asyncio.create_task(self._read(prefix)), time.monotonic())
            self._lookups[prefix] = lookup
            lookup.task.add_done_callback(lambda task: self._finish(prefix, task))
        return lookup

    def _finish(self, prefix: str, task: asyncio.Task[ApiKey | None]) -> None:
        del self._lookups[prefix]
        if not task.cancelled():
            task.exception()  # marks it as seen, in case no request waits; the database logs it

    async def _read(self, prefix: str) -> ApiKey | None:
        key = await self._database.read(partial(_by_prefix, prefix=prefix))
        self._entries[prefix] = _CacheEntry(key, self._clock())
        self._entries.move_to_end(prefix)
        if len(self._entries) > MAX_ENTRIES:
            self._evict_one()
        return key


def _by_prefix(session: Session, *, prefix: str) -> ApiKey | None:
    return KeyRepository(session).by_prefix(prefix)
