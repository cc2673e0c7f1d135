"""Connections that take room and do little: idle ones, and uploads that are slow or stall."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from app.loadtest.answer_bytes import AnswerBytes

TIMEOUT_S = 20.0
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
PART = b"x" * 1024
PART_EVERY_S = 1.0  # of each upload
TURNS = 50  # a second, in which the uploads take turns
END_WAIT_S = 5.0


def idle(port: int, count: int) -> list[socket.socket]:
    """Open connections that have had one answer and ask for nothing more."""
    opened = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        connection.sendall(HEALTH)
        answer = AnswerBytes()
        while not answer.take(connection.recv(4096)):
            pass
        opened.append(connection)
    return opened


def begin_upload(port: int, path: str, size: int, *, key: str = "") -> socket.socket:
    """Send the head of a request whose body is to come."""
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json"]
    lines += [f"Authorization: Bearer {key}"] if key else []
    connection.sendall("\r\n".join([*lines, f"Content-Length: {size}", "", ""]).encode())
    return connection


def send_stalling(connection: socket.socket, size: int) -> None:
    """Send so many bytes, or as many as the server takes, and no more."""
    connection.settimeout(TIMEOUT_S)
    with contextlib.suppress(OSError):
        for _ in range(size // len(PART)):
            connection.sendall(PART)


@contextmanager
def slow_uploads(port: int, count: int, size: int) -> Iterator[list[socket.socket]]:
    """Keep uploads going, a part of each every second, while the block runs."""
    with ExitStack() as stack:
        uploads = [
            stack.enter_context(contextlib.closing(begin_upload(port, "/predict", size)))
            for _ in range(count)
        ]
        stop = threading.Event()
        sender = threading.Thread(target=_send_parts, args=(uploads, stop), daemon=True)
        sender.start()
        try:
            yield uploads
        finally:
            stop.set()
            sender.join(END_WAIT_S)


def _send_parts(uploads: Sequence[socket.socket], stop: threading.Event) -> None:
    turns = int(TURNS * PART_EVERY_S)
    turn = 0
    while not stop.wait(1 / TURNS):
        for upload in uploads[turn % turns :: turns]:
            with contextlib.suppress(OSError):
                upload.send(PART)
        turn += 1


def answered(connections: Sequence[socket.socket]) -> int:
    """Return how many the server has answered or closed."""
    return sum(_is_readable(connection) for connection in connections)


def statuses(connections: Sequence[socket.socket], *, until_s: float) -> list[str]:
    """Wait for each answer until then; return their statuses, or "none"."""
    return [_status(connection, until_s) for connection in connections]


def _is_readable(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _status(connection: socket.socket, until_s: float) -> str:
    connection.settimeout(max(0.1, until_s - time.monotonic()))
    try:
        head = connection.recv(4096)
    except OSError:
        return "none"
    return head[9:12].decode("latin-1") or "none"
