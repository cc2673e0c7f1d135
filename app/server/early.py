"""Refuses a request whose connection has just been accepted, before there is a protocol for it.

While requests are refused, most new connections bring one small request that the kernel has
already; a transport and a parser for it cost ten times what the answer does.
"""

import re
import socket
from contextlib import suppress

from app.server.gate import Place
from app.server.overload import Head, Overload

# A request that is longer has its parser.
MOST_BYTES = 4_096
FIRST_LINE = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[!->@-~]*)(?:\?[!-~]*)? HTTP/1\.1")
# By its client, whose end or reset has come: linux/include/net/tcp_states.h, TCP_CLOSE and
# TCP_CLOSE_WAIT.
CLOSED = frozenset({7, 8})
# What makes it uncertain where a request ends, or who reads its answer.
UNUSUAL = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


def read_head(received: bytes) -> Head | None:
    """Return the head of a request that has been received to its last byte; None for all else."""
    head, end, body = received.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    asked = FIRST_LINE.fullmatch(first)
    if not end or asked is None:
        return None
    headers, lengths = [], [0]
    for line in lines:
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or name in UNUSUAL:
            return None
        value = value.strip(b" \t")
        headers.append((name, value))
        if name == b"content-length":
            if not value.isdigit():
                return None
            lengths.append(int(value))
    if len(lengths) > 2 or lengths[-1] != len(body):  # noqa: PLR2004  # one header at most
        return None
    return Head(path=asked[2], method=asked[1], headers=headers, is_kept=False)


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
        head = read_head(received)
        if head is None:
            return False
        kind = self._overload.kinds.of(head.path, head.method)
        if isinstance(self._overload.let_in(kind, head.headers, opening=opening), Place):
            return False  # a probe, or an administrator's: it comes in by its protocol
        answer = self._overload.refusal(head)
        with suppress(OSError):  # its client has gone
            connection.recv(len(received))  # closed on unread data it would be reset
            connection.send(answer)
        connection.close()
        return True
