"""How a server stops listening and ends its connections: no request that has come is dropped."""

import asyncio
import logging
import select
import time
from collections.abc import Callable, Sequence
from typing import cast

from uvicorn.server import ServerState

from app.core.ending import TIME_IS_OVER
from app.server.accepting import Acceptor
from app.server.drain import LAST_LINE_S, Drain
from app.server.protocol import BoundedHttpProtocol

log = logging.getLogger(__name__)

# Uvicorn's connections and tasks don't notify when they end.
POLL_S = 0.05
# A connection that was opened and has said nothing yet: its first request is on its way.
FIRST_REQUEST_S = 1.0
# Turns of the event loop: asyncio has accepted a connection a turn or two before it is one of
# the server's. New ones may come as fast as they are accepted; listening stops all the same.
QUIET_ROUNDS, MAX_ROUNDS = 3, 100


async def wait(is_over: Callable[[], bool], may: Callable[[float], bool]) -> None:
    """Wait until something is over, or there is no more time for it."""
    while not is_over() and may(time.monotonic()):  # noqa: ASYNC110  # as POLL_S says
        await asyncio.sleep(POLL_S)


class Closing:
    """Ends the connections of a server.

    Args:
        state: uvicorn's, of its connections and requests.
        drain: the phases of the end.

    """

    def __init__(self, state: ServerState, drain: Drain) -> None:
        self._state = state
        self._drain = drain

    async def stop_listening(
        self, servers: Sequence[asyncio.Server], acceptors: Sequence[Acceptor]
    ) -> None:
        """Stop listening, after accepting clients that wait: they would be reset."""
        listening = [one.fileno() for server in servers for one in server.sockets]
        quiet = 0
        for _ in range(MAX_ROUNDS):
            quiet = 0 if _has_arrived(*listening) else quiet + 1
            if quiet > QUIET_ROUNDS:
                break
            await asyncio.sleep(0)
        for server in servers:
            server.close()
        for acceptor in acceptors:
            await acceptor.wait_closed()

    async def let_end(self) -> None:
        """Let requests end, and cut those whose time is over."""
        await wait(self.close_idle, self._drain.is_answering)
        await self._cut()

    def close_idle(self) -> bool:
        """Close connections that are idle; tell whether none is left, and no request."""
        for connection in list(self._state.connections):
            self._close_when_idle(cast("BoundedHttpProtocol", connection))
        return not self._state.connections and not self._state.tasks

    def _close_when_idle(self, connection: BoundedHttpProtocol) -> None:
        """Close a connection after its answer, or now if no request is on its way."""
        if connection.transport.is_closing():
            return
        closed_s = cast("float", self._drain.closed_s)
        is_awaited = (
            connection.is_idle
            and not connection.is_kept
            and time.monotonic() < closed_s + FIRST_REQUEST_S
        )
        has_request = connection.is_kept and _has_arrived(
            connection.transport.get_extra_info("socket").fileno()
        )
        if not is_awaited and not has_request:
            connection.shutdown()

    async def _cut(self) -> None:
        """Cancel the requests whose time is over; each tells its client."""
        if tasks := set(self._state.tasks):
            log.warning("drain_cut", extra={"requests": len(tasks)})
            for task in tasks:
                task.cancel(TIME_IS_OVER)
        until_s = time.monotonic() + LAST_LINE_S
        await wait(self.close_idle, lambda now_s: now_s < until_s)


def _has_arrived(*descriptors: int) -> bool:
    """Return whether the kernel has something for these sockets that the event loop hasn't seen."""
    waiting = select.poll()
    for descriptor in descriptors:
        waiting.register(descriptor, select.POLLIN)
    return bool(waiting.poll(0))
