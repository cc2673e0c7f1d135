"""Refuses a request whose connection has just been accepted, before there is a protocol for it.

While requests are refused, most new connections bring one small request that the kernel has
already; a transport and a parser for it cost ten times what the answer does.
"""

import socket
from contextlib import suppress

from app.server.overload import Overload
from app.server.whole import MOST_BYTES, refuse_whole

# By its client, whose end or reset has come: linux/include/net/tcp_states.h, TCP_CLOSE and
# TCP_CLOSE_WAIT.
CLOSED = frozenset({7, 8})


def has_left(connection: socket.socket) -> bool:
    """Return whether a client has closed its connection: it was waiting too long to be accepted."""
    try:
        state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    except (OSError, AttributeError):  # not Linux
        return False
    return state in CLOSED


class EarlyRefusal:
    """Answers and closes new connections whose request would be refused anyway.

    Args:
        overload: decides, and makes the answer.

    """

    def __init__(self, overload: Overload) -> None:
        self._overload = overload

    def refuse(self, connection: socket.socket, opening: int) -> bool:
        """Return whether a connection has its answer, and is closed.

        Args:
            connection: just accepted, and not blocking.
            opening: how many were accepted whose request hasn't been read yet.

        """
        if not self._overload.is_full(opening):
            return False
        if has_left(connection):
            connection.close()
            return True
        try:
            received = connection.recv(MOST_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing is there yet, or its client has gone
            return False
        answer = refuse_whole(self._overload, received, opening=opening)
        if answer is None:
            return False
        with suppress(OSError):  # its client has gone
            connection.recv(len(received))  # closed on unread data it would be reset
            connection.send(answer)
        connection.close()
        return True
