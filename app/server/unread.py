"""When a connection is aborted whose client doesn't read a complete answer.

Its transport would wait for ever, with the answer in memory and a descriptor. Streamed answers have
a bound of their own.
"""

import asyncio

# Twice what a stream waits for: here no generation waits with it.
UNREAD_S = 60.0


class Unread:
    """Checks what a transport still has to send; aborts it when that gets no less.

    Args:
        loop: calls it.
        transport: of the connection.
        after_s: how long a client may read nothing.

    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.WriteTransport,
        *,
        after_s: float,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._after_s = after_s
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Check from now on: the answer is complete, and nothing will follow."""
        self.stop()
        if left := self._transport.get_write_buffer_size():
            self._timer = self._loop.call_later(self._after_s, self._look, left)

    def stop(self) -> None:
        """Stop checking: the connection has ended, or there is another answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, before: int) -> None:
        if self._transport.get_write_buffer_size() < before:
            self.start()
        else:
            self._transport.abort()
