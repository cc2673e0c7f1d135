"""Keeps responses in Redis, where all replicas find them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.core.redis_url import CONNECTIONS, make_pool
from app.errors import ResponsesUnavailableError
from app.services.kept_responses import (
    FULL,
    MAX_RECORD_BYTES,
    TOO_LARGE,
    UNAVAILABLE,
    KeepingBounds,
    OnDropped,
)

log = logging.getLogger(__name__)
T = TypeVar("T")
TIMEOUT_S = 2.0


class ResponsesInRedis:
    """Keeps records in Redis, which forgets them by itself after their time.

    While it doesn't answer nothing is kept, and the answers go out all the same.

    Args:
        client: of the server, which answers in bytes.
        bounds: how much; Redis's own `maxmemory` bounds its bytes.
        on_dropped: called with the reason for each record that isn't kept.

    """

    def __init__(self, client: Redis, bounds: KeepingBounds, *, on_dropped: OnDropped) -> None:
        self._client = client
        self._bounds = bounds
        self._on_dropped = on_dropped
        # One that finds no connection waits for it: that is no failure of the server's.
        self._slots = asyncio.Semaphore(CONNECTIONS)

    async def put(self, owner: str, response_id: str, record: bytes) -> bool:
        """Keep a record; older ones of its owner make room."""
        if len(record) > MAX_RECORD_BYTES:
            self._on_dropped(TOO_LARGE)
            return False
        try:
            await self._ask(lambda: self._put(owner, response_id, record))
        except ResponsesUnavailableError:
            self._on_dropped(UNAVAILABLE)
            return False
        return True

    async def get(self, owner: str, response_id: str) -> bytes | None:
        """Return a record."""
        found: bytes | None = await self._ask(lambda: self._client.get(_key(owner, response_id)))
        return found

    async def delete(self, owner: str, response_id: str) -> bool:
        """Forget a record."""
        async with self._client.pipeline() as pipe:
            pipe.delete(_key(owner, response_id))
            pipe.zrem(_index(owner), response_id)
            deleted, _ = await self._ask(pipe.execute)
        return bool(deleted)

    async def _put(self, owner: str, response_id: str, record: bytes) -> None:
        index, now_s = _index(owner), time.time()
        async with self._client.pipeline() as pipe:
            pipe.set(_key(owner, response_id), record, ex=self._bounds.seconds)
            pipe.zremrangebyscore(index, 0, now_s - self._bounds.seconds)
            pipe.zadd(index, {response_id: now_s})
            pipe.expire(index, self._bounds.seconds)
            pipe.zrange(index, 0, -self._bounds.count - 1)
            *_, oldest = await pipe.execute()
            if oldest:
                pipe.delete(*(_key(owner, name.decode()) for name in oldest))
                pipe.zrem(index, *oldest)
                await pipe.execute()
        for _ in oldest:
            self._on_dropped(FULL)

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            async with asyncio.timeout(TIMEOUT_S), self._slots:
                return await call()
        except (TimeoutError, RedisError, OSError) as failure:
            log.warning("responses_unavailable", extra={"cause": type(failure).__name__})
            raise ResponsesUnavailableError from None


# The braces keep all that is one owner's on one server of a cluster.
def _key(owner: str, response_id: str) -> str:
    return f"mlapi:responses:{{{owner}}}:{response_id}"


def _index(owner: str) -> str:
    return f"mlapi:responses:{{{owner}}}"


@asynccontextmanager
async def open_in_redis(
    url: str, bounds: KeepingBounds, *, on_dropped: OnDropped
) -> AsyncIterator[ResponsesInRedis]:
    """Keep responses in Redis during the block; without a connection yet.

    Raises:
        SettingsError: the address can't be read; the message doesn't repeat it.

    """
    pool = make_pool(url)
    try:
        yield ResponsesInRedis(Redis(connection_pool=pool), bounds, on_dropped=on_dropped)
    finally:
        await pool.disconnect()
