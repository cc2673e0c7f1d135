"""How far a connection is read ahead of its answers.

A client may send requests without waiting for answers. Uvicorn parses all that it reads, and reads
on whenever a request asks for its body, so that one connection could fill the memory.
"""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

# Requests that wait behind the one that is being answered: none would be enough for answers to
# follow each other at once, and a browser's few fit.
MOST_WAITING = 8
# The parser can't be stopped within what it is given. A piece has 41 of the shortest requests, and
# most requests fit into one.
PIECE_BYTES = 1_024


class ReadAhead(FlowControl):
    """Keeps what was read and not parsed, and reads no more while it is held."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__(transport)
        self._received = b""
        self._taken = 0
        self._is_held = False

    @property
    def has_unparsed(self) -> bool:
        """Whether something was read that isn't parsed."""
        return self._taken < len(self._received)

    def add(self, received: bytes) -> None:
        """Keep what was read."""
        if self.has_unparsed:
            received = self._received[self._taken :] + received
        self._received, self._taken = received, 0

    def take(self, size: int) -> bytes:
        """Return the next bytes, so many at most."""
        piece = self._received[self._taken : self._taken + size]
        self._taken += len(piece)
        return piece

    def drop(self) -> None:
        """Forget what isn't parsed; reading may go on."""
        self._received, self._taken = b"", 0
        self._is_held = False

    def hold(self) -> None:
        """Read no more, whatever requests ask for, until `release`."""
        self._is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Read on, if this was held: all is parsed."""
        self._received, self._taken = b"", 0
        if self._is_held:
            self._is_held = False
            self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, unless it is held."""
        if not self._is_held:
            super().resume_reading()
