"""Which keys there are, from memory as long as that may be believed: no request waits for SQL."""

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

MAX_REMEMBERED = 10_000
# A look at one row takes a millisecond: a database that needs so much longer doesn't answer.
PATIENCE_S = 0.25


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


class KnownKeys:
    """What the database has said of keys.

    Args:
        database: where they are stored.
        cache_s: for how long a verdict is believed.
        stale_s: for how long it is believed while the database doesn't answer.
        clock: monotonic seconds.

    """

    def __init__(
        self, database: Database, *, cache_s: float, stale_s: float, clock: Callable[[], float]
    ) -> None:
        self._database = database
        self._cache_s = cache_s
        self._stale_s = stale_s
        self._clock = clock
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._asking: dict[str, _Question] = {}
        self._turn = asyncio.Lock()

    async def find(self, prefix: str, *, in_turn: bool) -> ApiKey | None:
        """Return the key with a prefix; None: there is none.

        Args:
            prefix: of a key's text.
            in_turn: one after another, if the database must be asked of a key that is not known.

        Raises:
            DatabaseUnavailableError: nothing is known of it, and the database doesn't answer, or
                with `in_turn` not in time.

        """
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

    def outdate(self, key_id: int) -> None:
        """Have the database asked again of a key that was changed."""
        for seen in self._seen.values():
            if seen.key is not None and seen.key.id == key_id:
                seen.at_s = -self._stale_s

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


def _by_prefix(session: Session, *, prefix: str) -> ApiKey | None:
    return KeyRepository(session).by_prefix(prefix)
