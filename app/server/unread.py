"""When a connection ends whose reader takes nothing of a whole answer.

Its transport would wait for that reader for ever, with the answer in memory and a descriptor. What
is streamed has a bound of its own.
"""

import asyncio

# Twice what a stream waits for: here no generation waits with it.
UNREAD_S = 60.0


class Unread:
    """Looks at what a transport still has to send; aborts it when that gets no less.

    Args:
        loop: calls it.
        transport: of the connection.
        after_s: how long a reader may take nothing.

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
        """Look from now on: an answer is whole, and nothing will come behind it."""
        self.stop()
        if left := self._transport.get_write_buffer_size():
            self._timer = self._loop.call_later(self._after_s, self._look, left)

    def stop(self) -> None:
        """Look no more: the connection has ended, or there is another answer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, before: int) -> None:
        if self._transport.get_write_buffer_size() < before:
            self.start()
        else:
            self._transport.abort()
