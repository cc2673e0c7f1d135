"""A process of the service that the first process watches: what it tells, and is asked."""

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any, Self

from app.core.metrics_sum import report
from app.errors import StartupError
from app.runtime.runtime import Runtime
from app.server.channel import Channel, encode

# Between two messages of how this process is: a load balancer would ask as often.
TELL_S = 0.5
STDIN = 0


class Member:
    """Tells the first process how this one is.

    Args:
        sock: the connection to the first process.

    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        # To say why the start failed, when the event loop has closed the other.
        self._last = sock.dup()
        self._channel: Channel | None = None  # once it is open
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def inherit(cls) -> Self:
        """Take the connection, this process's standard input, which children would inherit."""
        own = socket.socket(fileno=os.dup(STDIN))
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, STDIN)
        os.close(nothing)
        return cls(own)

    async def join(self, runtime: Runtime) -> None:
        """Begin to tell, and to listen."""
        self._runtime = runtime
        self._channel = channel = await Channel.open(self._socket)
        self._tasks = [
            asyncio.create_task(self._keep_telling()),
            asyncio.create_task(self._listen(channel)),
        ]

    def fail(self, failure: StartupError) -> None:
        """Let the first process say why this one couldn't start."""
        with suppress(OSError):
            self._last.sendall(b"\n" + encode("failed", reason=str(failure)))

    def tell(self) -> None:
        """Tell the first process how this one is, if it has begun to serve."""
        if self._channel is None:
            return
        self._channel.send(
            "state",
            is_open=self._runtime.loaded.is_set() and self._runtime.stored.is_set(),
            is_ready=self._runtime.is_ready(),
            problems=self._runtime.own_problems(),
        )

    def send(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  # whatever JSON has
        """Send a message, once this process has joined."""
        if self._channel is not None:
            self._channel.send(kind, **fields)

    def take(self, message: dict[str, Any]) -> None:
        """Take a message that only some processes get."""

    async def _keep_telling(self) -> None:
        """Tell from time to time: that it does shows that it isn't stuck."""
        while True:
            self.tell()
            await asyncio.sleep(TELL_S)

    async def _listen(self, channel: Channel) -> None:
        async for message in channel.messages():
            if message["kind"] == "report":
                channel.send("report", report=report(self._runtime.metrics.registry))
            else:
                self.take(message)
