"""How the first process and a front end talk: a socket pair, a message of JSON on each line."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

log = logging.getLogger(__name__)

# A report of metrics has about 100 KB, more with many models.
MAX_MESSAGE_BYTES = 2**24
# A process that doesn't read gets no more until it does: it is stuck, and will be asked again.
MAX_WAITING_BYTES = 2**20


class Channel:
    """One end of the connection between the first process and a front end.

    Args:
        reader: of the connection.
        writer: of the connection.

    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> "Channel":
        """Return a channel over a socket, which it then owns."""
        return cls(*await asyncio.open_unix_connection(sock=sock, limit=MAX_MESSAGE_BYTES))

    def send(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  # whatever JSON has
        """Send a message, unless the connection has ended or too much waits there already."""
        transport = self._writer.transport
        if not transport.is_closing() and transport.get_write_buffer_size() < MAX_WAITING_BYTES:
            self._writer.write(encode(kind, **fields))

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield each message until the other process has ended."""
        try:
            async for line in self._reader:
                if line.strip():
                    yield json.loads(line)
        except (OSError, ValueError) as failure:  # cut off in the middle of a message
            log.debug("channel_ended", extra={"error": type(failure).__name__})

    def close(self) -> None:
        """Close this end."""
        self._writer.close()


def encode(kind: str, **fields: Any) -> bytes:  # noqa: ANN401  # as above
    """Return a message as the bytes that are sent."""
    return json.dumps({"kind": kind, **fields}).encode() + b"\n"
