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

# Connections at a time, as asyncio: between them others have their turn.
AT_ONCE = 100
RETRY_S = 0.05
# Of descriptors or of memory, the process or the machine has none left. Any other failure is of one
# connection, which accept(2) hands on with it.
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OnShortage = Callable[[], None]


class Acceptor:
    """Accepts connections of one socket; stands where uvicorn has an event loop's server.

    Args:
        listening: already listens; closed with this.
        make_protocol: makes what a connection is for.
        on_shortage: called when connections begin to wait for a descriptor.
        retry_s: after how long it is looked whether there is one.

    """

    def __init__(
        self,
        listening: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        on_shortage: OnShortage,
        retry_s: float = RETRY_S,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._make_protocol = make_protocol
        self._on_shortage = on_shortage
        self._retry_s = retry_s
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
        for _ in range(AT_ONCE):
            if is_short(self._listening.fileno()):
                self._wait()
                return
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:  # no more are there
                break
            except OSError as failure:
                if failure.errno in SHORTAGES:
                    self._wait()
                    return
                continue
            connection.settimeout(0)
            task = self._loop.create_task(self._connect(connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        self._is_waiting = False

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
        """Leave them in the kernel's queue, and look again in a moment."""
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(self._retry_s, self._go_on)
        if not self._is_waiting:
            self._is_waiting = True
            self._on_shortage()
        if self._throttle.passes():
            log.error("out_of_descriptors", extra={"limit": limit()})

    def _go_on(self) -> None:
        self._loop.add_reader(self._listening, self._accept)
