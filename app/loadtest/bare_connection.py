"""One connection on a bare socket, for loads in which most connections are new.

An event loop spends more on opening a connection than on all the rest of a request, and the client
shares the cores with what it measures; here a new connection is four system calls.
"""

import errno
import selectors
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.loadtest.answer_bytes import AnswerBytes
from app.loadtest.connection import CLOSED
from app.loadtest.loop import TIMEOUT, UNCONNECTED

RECEIVE_BYTES = 65_536
# The connection isn't there yet: Linux says the first, BSD the second.
NOT_YET = frozenset({errno.EAGAIN, errno.ENOTCONN})


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket connects to."""

    family: socket.AddressFamily
    place: tuple[Any, ...]  # host and port, and of IPv6 two numbers more


class BareConnection:
    """A connection with at most one request on its way, opened with its first.

    Args:
        selector: told what the connection waits for; calls of `on_ready` are its owner's.
        address: of the server.
        on_end: called with the connection and the outcome of each request.

    """

    __slots__ = (
        "_address",
        "_is_connected",
        "_on_end",
        "_selector",
        "_socket",
        "_unsent",
        "_watched",
        "answer",
        "due_s",
        "is_busy",
        "number",
    )

    def __init__(
        self,
        selector: selectors.BaseSelector,
        address: Address,
        on_end: Callable[["BareConnection", str], None],
    ) -> None:
        self._selector = selector
        self._address = address
        self._on_end = on_end
        self._socket: socket.socket | None = None
        self._is_connected = False
        self._watched = 0
        self._unsent = b""
        self.answer = AnswerBytes()
        self.is_busy = False
        self.number = -1
        self.due_s = 0.0

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent over it."""
        return self._socket is not None

    def send(self, number: int, request: bytes, due_s: float) -> None:
        """Send a request that was due at that time."""
        self.number, self.due_s, self.is_busy = number, due_s, True
        self.answer = AnswerBytes()
        self._unsent = request
        try:
            self._write(self._socket or self._open())
        except OSError:
            self._fail()

    def on_ready(self) -> None:
        """Go on: the socket can be written, or has something to read."""
        if self._socket is None:
            return
        try:
            if self._unsent:
                self._write(self._socket)
            else:
                self._read(self._socket)
        except OSError:
            self._fail()

    def leave(self) -> None:
        """Leave without waiting for the answer, as an impatient client does."""
        self.close()
        self._finish(TIMEOUT if self._is_connected else UNCONNECTED)

    def close(self) -> None:
        """Close the connection now."""
        if self._socket is None:
            return
        if self._watched:
            self._selector.unregister(self._socket)
        self._socket.close()
        self._socket = None

    def _open(self) -> socket.socket:
        made = socket.socket(self._address.family, socket.SOCK_STREAM)
        self._socket = made
        made.settimeout(0)
        failure = made.connect_ex(self._address.place)
        if failure not in {0, errno.EINPROGRESS, errno.EWOULDBLOCK}:
            raise OSError(failure, "not connected")
        return made

    def _write(self, opened: socket.socket) -> None:
        try:
            sent = opened.send(self._unsent)
        except OSError as failure:
            if failure.errno not in NOT_YET:
                raise
        else:
            self._is_connected = True
            self._unsent = self._unsent[sent:]
        self._watch(opened, selectors.EVENT_WRITE if self._unsent else selectors.EVENT_READ)

    def _watch(self, opened: socket.socket, events: int) -> None:
        if not self._watched:
            self._selector.register(opened, events, self)
        elif events != self._watched:
            self._selector.modify(opened, events, self)
        self._watched = events

    def _read(self, opened: socket.socket) -> None:
        try:
            data = opened.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data or not self.is_busy:
            self._fail()  # or the server closes a connection on which nothing was asked
        elif self.answer.take(data):
            if self.answer.is_last:
                self.close()
            self._finish(self.answer.status)

    def _fail(self) -> None:
        self.close()
        if self.is_busy:
            self._finish(CLOSED if self._is_connected else UNCONNECTED)

    def _finish(self, outcome: str) -> None:
        self.is_busy = False
        self._on_end(self, outcome)
