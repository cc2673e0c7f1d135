"""Counters that all replicas share: in Redis, with the library `limits`."""

import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from limits.aio.storage import RedisStorage
from redis.asyncio import ConnectionPool

from app.core.redis_url import make_pool

KEY_PREFIX = "mlapi:limits"
MAX_CACHED_ENDS = 10_000


class SharedStorage(RedisStorage):
    """The library's storage, which caches when windows end.

    Otherwise `X-RateLimit-Reset` would need a second round trip for each request.

    Args:
        pool: connections to the server.

    """

    # Without this the library also looks for, and imports, two other clients.
    DEPENDENCIES = {"redis": RedisStorage.DEPENDENCIES["redis"]}  # noqa: RUF012  # as the library

    def __init__(self, pool: ConnectionPool) -> None:
        super().__init__(
            "async+redis://",
            implementation="redispy",
            key_prefix=KEY_PREFIX,
            connection_pool=pool,  # type: ignore[arg-type]  # the library passes it on
        )
        self._ends: OrderedDict[str, float] = OrderedDict()

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Count `amount` and return the sum; the first begins a window of `expiry` seconds."""
        count = await super().incr(key, expiry, amount)
        if count == amount:
            self._remember(key, time.time() + expiry)
        return count

    async def get_expiry(self, key: str) -> float:
        """Return when the key's window ends, now without one."""
        ends_at_s = self._ends.get(key, 0)
        if ends_at_s <= time.time():
            ends_at_s = await super().get_expiry(key)
            self._remember(key, ends_at_s)
        return ends_at_s

    def _remember(self, key: str, ends_at_s: float) -> None:
        self._ends[key] = ends_at_s
        self._ends.move_to_end(key)
        if len(self._ends) > MAX_CACHED_ENDS:
            self._ends.popitem(last=False)


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[SharedStorage]:
    """Make the storage, without a connection yet, and close its connections at the end.

    Args:
        url: `redis://`, `rediss://`, or `redis+socket://` and `unix://` with a path.

    Raises:
        SettingsError: the address can't be read; the message doesn't repeat it.

    """
    pool = make_pool(url)  # without a timeout: the limiter has one, see server_timeout.py
    try:
        yield SharedStorage(pool)
    finally:
        await pool.disconnect()
