"""When a connection is accepted: not before there is a descriptor for it and for what it needs.

Event loops accept as long as the kernel lets them. Uvloop's then takes what is left over with its
last descriptor and closes it, so that callers are reset and nothing is logged. Here they wait in
the kernel's queue until another connection ends.
"""

import asyncio
import logging
import math
import socket
import time
from collections.abc import Callable

from app.descriptors import is_short, limit

log = logging.getLogger(__name__)

# Connections at a time, as asyncio: between them others have their turn.
AT_ONCE = 100
RETRY_S = 0.05
LOG_EVERY_S = 60.0
OnShortage = Callable[[], None]


class Acceptor:
    """Accepts connections of one socket; stands where uvicorn has an event loop's server.

    Args:
        listening: already listens; closed with this.
        make_protocol: makes what a connection is for.
        on_shortage: called when connections begin to wait for a descriptor.

    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        on_shortage: OnShortage,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._make_protocol = make_protocol
        self._on_shortage = on_shortage
        self._opening: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._is_waiting = False
        self._logged_s = -math.inf
        self._loop.add_reader(listening, self._accept)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The socket, while it is open."""
        return (self._listening,) if self._listening.fileno() >= 0 else ()

    def close(self) -> None:
        """Accept no more."""
        if self._retry is not None:
            self._retry.cancel()
        if self.sockets:
            self._loop.remove_reader(self._listening)
            self._listening.close()

    async def wait_closed(self) -> None:
        """Return at once, as `close` has closed everything."""

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if is_short(self._listening.fileno()):
                self._wait()
                return
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._is_waiting = False
                return
            except OSError:  # of the machine's descriptors, or its memory, nothing is left
                self._wait()
                return
            connection.settimeout(0)
            task = self._loop.create_task(self._connect(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError as failure:
            connection.close()  # its client has gone meanwhile
            log.debug("connection_gone", extra={"error": type(failure).__name__})

    def _wait(self) -> None:
        """Leave them in the kernel's queue, and look again in a moment."""
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(RETRY_S, self._go_on)
        if not self._is_waiting:
            self._is_waiting = True
            self._on_shortage()
        now_s = time.monotonic()
        if now_s >= self._logged_s + LOG_EVERY_S:
            self._logged_s = now_s
            log.error("out_of_descriptors", extra={"limit": limit()})

    def _go_on(self) -> None:
        self._loop.add_reader(self._listening, self._accept)
