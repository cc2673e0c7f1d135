"""Counts requests and tokens against limits, and says which callers may go on.

When the storage fails or is slow, requests pass (fail open): limits protect the service, and must
not take it down. `limiter_unavailable_total` counts these requests.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

from limits import RateLimitItem
from limits.aio.storage import Storage
from redis.exceptions import RedisError

from app.core.redis_url import CONNECTIONS
from app.core.throttle import Throttle
from app.features.access.limits.circuit import Circuit
from app.features.access.limits.limit import Limit, Verdict
from app.features.access.limits.server_timeout import server_timeout
from app.features.access.metrics import AccessMetrics

log = logging.getLogger(__name__)

# Takes a window, its counter's name and a cost; returns the count, and when the window ends.
CounterCall = Callable[[RateLimitItem, str, int], Awaitable[tuple[int, float]]]

# While the server is down one call in this time waits for it; the others pass uncounted.
RETRY_AFTER_S = 1.0


class Limiter:
    """Counts against limits in windows that begin with a caller's first hit.

    Args:
        storage: where counters are; all processes that share it share the limits.
        metrics: where calls that passed uncounted are counted.
        budget_s: how long the storage may be silent before a call passes uncounted.
        clock: seconds, for the pauses between retries and between log lines.
        wall_clock: seconds since 1970, as the storage has it.

    """

    def __init__(
        self,
        storage: Storage,
        *,
        metrics: AccessMetrics,
        budget_s: float = 0.05,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._unavailable = metrics.limiter_unavailable
        self._budget_s = budget_s
        self._clock = clock
        self._wall_clock = wall_clock
        self._circuit = Circuit(retry_after_s=RETRY_AFTER_S)
        # A burst of our own waits here for a connection. That isn't the server's silence, so it
        # doesn't count towards the budget: else bursts would pass uncounted.
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._throttle = Throttle(clock=clock)

    async def hit(self, limit: Limit, *identifiers: str, cost: int = 1) -> Verdict:
        """Count a request and say whether it may go on.

        A refused request counts too. With several windows, those after the first that refuses
        aren't counted.

        Args:
            limit: as `parse` made it.
            identifiers: the caller and what it uses, such as a key's id and a group of routes.
            cost: how much is counted, at least 1.

        """
        verdict: Verdict | None = None
        for item in limit.items:
            count = await self._run(self._count, item, _key(item, identifiers), cost)
            verdict = _tighter(verdict, self._verdict(item, count, allowed_at=item.amount))
            if not verdict.is_allowed:
                break
        return _require(verdict)

    async def peek(self, limit: Limit, *identifiers: str) -> Verdict:
        """Say whether anything is left, without counting."""
        return await self._left(self._read, limit, identifiers, 0)

    async def spend(self, limit: Limit, *identifiers: str, cost: int) -> Verdict:
        """Count a cost before the work, and say whether anything was left before it.

        The cost may exceed the limit. A refused cost is counted too: undo it with `give_back`.

        Args:
            limit: as `parse` made it.
            identifiers: as for `peek`.
            cost: how much is counted, at least 1.

        """
        return await self._left(self._count, limit, identifiers, cost)

    async def give_back(self, limit: Limit, *identifiers: str, cost: int, spent: Verdict) -> None:
        """Undo what `spend` counted; nothing if the window of its verdict is over."""
        if spent.is_counted and self._wall_clock() < spent.reset_at_s:
            await self._charge(limit, identifiers, -cost)

    async def charge(self, limit: Limit, *identifiers: str, cost: int) -> None:
        """Count what was used, afterwards; it may exceed the limit, and the next `peek` refuses.

        Args:
            limit: as `parse` made it.
            identifiers: as for `peek`.
            cost: how much was used; nothing is counted for 0.

        """
        if cost > 0:
            await self._charge(limit, identifiers, cost)

    async def _left(
        self, call: CounterCall, limit: Limit, identifiers: tuple[str, ...], cost: int
    ) -> Verdict:
        """Say whether every window had anything left before a cost."""
        verdict: Verdict | None = None
        for item in limit.items:
            count = await self._run(call, item, _key(item, identifiers), cost)
            allowed_at = item.amount - 1 + cost
            verdict = _tighter(verdict, self._verdict(item, count, allowed_at=allowed_at))
        return _require(verdict)

    async def _charge(self, limit: Limit, identifiers: tuple[str, ...], cost: int) -> None:
        for item in limit.items:
            await self._run(self._count, item, _key(item, identifiers), cost)

    async def _count(self, item: RateLimitItem, key: str, cost: int) -> tuple[int, float]:
        count = await self._storage.incr(key, item.get_expiry(), cost)
        return count, await self._storage.get_expiry(key)

    async def _read(self, _: RateLimitItem, key: str, __: int) -> tuple[int, float]:
        return await self._storage.get(key), await self._storage.get_expiry(key)

    async def _run(
        self, call: CounterCall, item: RateLimitItem, key: str, cost: int
    ) -> tuple[int, float] | None:
        """Call the storage; None when it is unavailable or slow."""
        async with self._slots:
            if not self._circuit.may_call(self._clock()):
                self._unavailable.inc()
                return None
            try:
                async with server_timeout(self._budget_s):
                    answer = await call(item, key, cost)
            except (RedisError, OSError, TimeoutError) as failure:
                self._fail_open(failure)
                return None
            self._circuit.succeeded()
            return answer

    def _fail_open(self, failure: Exception) -> None:
        self._circuit.failed(self._clock())
        self._unavailable.inc()
        if self._throttle.passes():
            # The message may name the server's address, so only the type is logged.
            log.warning("limiter_unavailable", extra={"error": type(failure).__name__})

    def _verdict(
        self, item: RateLimitItem, answer: tuple[int, float] | None, *, allowed_at: int
    ) -> Verdict:
        now_s = self._wall_clock()
        count, ends_at_s = answer or (0, now_s)
        return Verdict(
            is_allowed=count <= allowed_at,
            is_counted=answer is not None,
            limit=item.amount,
            remaining=max(0, item.amount - count),
            reset_s=max(0.0, ends_at_s - now_s),
            reset_at_s=ends_at_s,
        )


def _key(item: RateLimitItem, identifiers: tuple[str, ...]) -> str:
    """Return the counter's name; `/` is the library's separator, so it is quoted."""
    return item.key_for(*(quote(part, safe=":.") for part in identifiers))


def _tighter(first: Verdict | None, second: Verdict) -> Verdict:
    """Return the stricter verdict: a refusal, or the one with less left."""
    if first is None or not second.is_allowed or not first.is_counted:
        return second
    if not first.is_allowed:
        return first
    is_second_tighter = second.is_counted and second.remaining < first.remaining
    return second if is_second_tighter else first


def _require(verdict: Verdict | None) -> Verdict:
    assert verdict is not None, "a limit has at least one window"  # noqa: S101  # `parse` sees to it
    return verdict
