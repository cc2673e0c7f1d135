"""When a connection is accepted: not before there is a descriptor for it and for what it needs.

Event loops accept as long as the kernel lets them. Uvloop's then takes what is left over with its
last descriptor and closes it, so that callers are reset and nothing is logged. Here they wait in
the kernel's queue until another connection ends.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from app.core.throttle import Throttle
from app.server.descriptors import is_short, limit

log = logging.getLogger(__name__)

# Connections at a time; between them other tasks run. All that have come, mostly: what waits in the
# kernel's queue gets old unseen, and most of a storm is refused for little (`early.py`).
AT_ONCE = 512
RETRY_S = 0.05
# The process or the machine has no descriptors or no memory left. Any other failure is of one
# connection, whose errors accept(2) passes on.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OnShortage = Callable[[], None]
Refuse = Callable[[socket.socket, int], bool]


def refuse_none(_connection: socket.socket, _opening: int) -> bool:
    """Let each connection come in."""
    return False


class Acceptor:
    """Accepts connections of one socket; replaces the event loop's server in uvicorn.

    Args:
        listening: already listens; closed with this.
        make_protocol: makes what a connection is for.
        on_shortage: called when connections begin to wait for a descriptor.
        refuse: called with each new connection, and how many have no protocol yet; True when it
            has been answered and closed.
        retry_s: the pause before it tries again.
        at_once: how many it takes in a turn of the event loop.

    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        on_shortage: OnShortage,
        refuse: Refuse = refuse_none,
        retry_s: float = RETRY_S,
        at_once: int = AT_ONCE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._make_protocol = make_protocol
        self._on_shortage = on_shortage
        self._refuse = refuse
        self._retry_s = retry_s
        self._at_once = at_once
        self._opening: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._is_waiting = False
        self._throttle = Throttle()
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
        """Wait until each connection that was accepted has its protocol, or was closed."""
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self) -> None:
        arrived, is_short_of = self._take()
        # The latest first: there may be places for some of them only, and clients that have waited
        # long are about to leave.
        for connection in reversed(arrived):
            connection.settimeout(0)
            if self._refuse(connection, len(self._opening)):
                continue
            task = self._loop.create_task(self._connect(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        if is_short_of:
            self._wait()
        else:
            self._is_waiting = False

    def _take(self) -> tuple[list[socket.socket], bool]:
        """Return what has arrived, and whether there is no descriptor for more."""
        arrived: list[socket.socket] = []
        for _ in range(self._at_once):
            if is_short(self._listening.fileno()):
                return arrived, True
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:  # no more are there
                break
            except OSError as failure:
                if failure.errno in SHORTAGES:
                    return arrived, True
                continue
            arrived.append(connection)
        return arrived, False

    async def _connect(self, connection: socket.socket) -> None:
        is_connected = False
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
            is_connected = True
        except OSError as failure:  # its client has gone meanwhile
            log.debug("connection_gone", extra={"error": type(failure).__name__})
        except Exception:
            log.exception("connection_failed")
        finally:
            if not is_connected:
                connection.close()

    def _wait(self) -> None:
        """Leave connections in the kernel's queue, and try again in a moment."""
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(self._retry_s, self._go_on)
        if not self._is_waiting:
            self._is_waiting = True
            self._on_shortage()
        if self._throttle.passes():
            log.error("out_of_descriptors", extra={"limit": limit()})

    def _go_on(self) -> None:
        self._loop.add_reader(self._listening, self._accept)
