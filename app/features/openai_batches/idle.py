"""Work that gives way to clients: it begins while there is none, and stops soon after one comes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from app.core.client_requests import ClientRequests

T = TypeVar("T")
# Between the requests of a client that sends one after the other there are milliseconds.
QUIET_S = 0.05
# There is no event for time that passes; only while there is work.
POLL_S = 0.02


class IdleCapacity:
    """Runs work while no client's request does.

    Args:
        clients: counts their requests.
        yield_s: for how long work goes on beside them.
        is_closed: whether nothing may begin: too many requests, or the process ends.

    """

    def __init__(
        self,
        clients: ClientRequests,
        *,
        yield_s: float,
        is_closed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._clients = clients
        self._yield_s = yield_s
        self._is_closed = is_closed

    @property
    def is_idle(self) -> bool:
        """Whether work may begin."""
        return self._clients.idle_s >= QUIET_S and not self._is_closed()

    async def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T | None:
        """Run work; None: it had to give way, and was cancelled."""
        task = asyncio.create_task(work())
        try:
            while not task.done():
                if self._must_yield():
                    return None
                await asyncio.wait({task}, timeout=POLL_S)
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def _must_yield(self) -> bool:
        return self._clients.in_flight > 0 and self._clients.busy_s >= self._yield_s
