"""Frees a thread from a database that doesn't answer."""

import os
import socket
import sqlite3
import threading
from contextlib import suppress
from typing import Any


class Call:
    """What the thread of a call is waiting on.

    A server that is frozen answers no statement and keeps no timeout: only closing the connection
    from here frees the thread.
    """

    def __init__(self) -> None:
        self.is_aborted = False
        self.is_connection_new = False
        self.is_committing = False
        self._lock = threading.Lock()
        self._sqlite: sqlite3.Connection | None = None
        self._socket: socket.socket | None = None

    def attach(self, connection: Any) -> None:  # noqa: ANN401 -- the driver's, psycopg2 is untyped
        """Note the driver's connection that the thread uses from now on."""
        with self._lock:
            self._drop()
            if isinstance(connection, sqlite3.Connection):
                self._sqlite = connection
            else:
                # A descriptor of our own: the connection's may be closed, and its number given to
                # another one, while we reach for it.
                self._socket = socket.socket(fileno=os.dup(connection.fileno()))
            if self.is_aborted:
                self._interrupt()

    def detach(self) -> None:
        """Forget the connection: it goes back to the pool."""
        with self._lock:
            self._drop()

    def abort(self) -> None:
        """Make what the thread waits for fail now; may be called in any thread."""
        with self._lock:
            self.is_aborted = True
            self._interrupt()

    def _interrupt(self) -> None:
        if self._sqlite is not None:
            with suppress(sqlite3.ProgrammingError):  # it is closed already
                self._sqlite.interrupt()
        if self._socket is not None:
            # It may be closed already by the other side.
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        self._sqlite = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
