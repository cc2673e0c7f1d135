"""Bounds what a connection may send before a request is one: bytes and time of its headers."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# As nginx's four buffers of 8 KiB, doubled.
MAX_HEADER_BYTES = 65_536
# A connection that is opened and then says nothing, or says it a byte at a time.
HEADER_TIMEOUT_S = 20
LINGER_S = 2
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)
TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which as it comes waits for headers without end, in bytes and in time.

    The answers have no body: before its headers are read, a request has no id and no path.
    """

    header_timeout_s: float = HEADER_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*args, **kwargs)
        self._header_bytes = 0
        self._is_in_headers = True
        self._has_trailers = False
        self._is_refused = False
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse headers that have grown too large."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_in_headers or self._has_trailers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(TOO_LARGE)
        elif self._header_timer is None and self.is_idle:
            # Less than a request, such as an empty line: uvicorn's own clock has been stopped.
            self._start_clock()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_kept(self) -> bool:
        """Whether it was used, and nothing of a next request has been read."""
        is_between = not (self._is_in_headers and self._header_bytes)
        return self.cycle is not None and self.is_idle and is_between

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep headers; trailers after a chunked body say nothing to anybody here."""
        if self._is_in_headers:
            super().on_header(name, value)
        else:
            self._has_trailers = True

    def on_message_begin(self) -> None:
        """Start the clock of the next request on a kept connection."""
        super().on_message_begin()
        self._is_in_headers, self._has_trailers, self._header_bytes = True, False, 0
        if self._header_timer is None:
            self._start_clock()

    def on_headers_complete(self) -> None:
        """Stop the clock; from here on the body's bounds hold."""
        self._is_in_headers = False
        self._stop_clock()
        # For a reader that takes nothing. Uvicorn makes each request a state of its own, before
        # this; `app_state` is shared by all connections.
        self.scope["state"]["abort"] = self.transport.abort
        super().on_headers_complete()

    def _start_clock(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._refuse, TOO_SLOW)

    def _stop_clock(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, answer: bytes) -> None:
        """Answer, and go on reading for a moment: closing on unread data would reset the answer."""
        self._stop_clock()
        if self._is_refused or self.transport.is_closing():
            return
        if not self.is_idle:
            # An answer to the request before is under way: this one would be taken for it.
            if answer is TOO_SLOW:
                self._start_clock()
            else:
                self.transport.abort()
            return
        self._is_refused = True
        self.transport.write(answer)
        self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)
