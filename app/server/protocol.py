"""One connection: bounds what it sends before a request is complete, and answers invalid ones."""

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.core.connection import Connection
from app.errors import (
    BadRequestError,
    BodyTooLargeError,
    HeadersTimeoutError,
    HeadersTooLargeError,
    ServiceError,
)
from app.server.refusal import refusal
from app.server.request_head import (
    HEAD_END,
    MAX_HEADER_BYTES,
    RequestHead,
    without_upgrade,
)
from app.server.unread import UNREAD_S, Unread

# For a connection that sends nothing, or a byte at a time.
HEADER_TIMEOUT_S = 20
LINGER_S = 2
# A chunk of one byte comes with five around it.
FRAMING_PER_BYTE = 8


class BoundedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with bounds in bytes and in time, and with errors of ours.

    No request is upgraded to another protocol: as RFC 9110 has it, the upgrade is ignored and
    the request answered.
    """

    header_timeout_s: float = HEADER_TIMEOUT_S
    unread_s: float = UNREAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*args, **kwargs)
        self.url = b""
        self._head = RequestHead()
        self._unfinished_bytes = 0  # of a head that hasn't come to its end
        self._framing_bytes = 0  # of a body, beyond what its chunks may have around them
        # In what is being parsed: messages that begin, and bytes of bodies.
        self._begun = self._body_bytes = 0
        self._is_in_headers = True
        self._is_in_body = False
        self._has_trailers = False
        self._is_upgrade = False
        self._refusal: ServiceError | None = None
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._connection = Connection(transport.abort)
        self._unread = Unread(self.loop, transport, after_s=self.unread_s)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._stop_clock()
        self._unread.stop()
        super().connection_lost(exc)
        self._connection.end()

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what can't be parsed, and what has grown too large."""
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        was_in_body = self._is_in_body
        self._begun = self._body_bytes = 0
        rest = data
        while rest and self._refusal is None:
            rest = self._parse(rest)
        if self._is_in_headers:
            self._bound_head(data)
        elif self._is_in_body:
            if was_in_body and not self._begun:
                self._bound_framing(len(data) - self._body_bytes)
        elif self._header_timer is None and self.is_idle:
            # Less than a request, such as an empty line: uvicorn's own clock has been stopped.
            self._start_clock()

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _has_served(self) -> bool:
        return self.cycle is not None

    @property
    def is_kept(self) -> bool:
        """Whether it has served a request, and nothing of the next has been read."""
        is_between = not (self._is_in_headers and self._unfinished_bytes)
        return self._has_served and self.is_idle and is_between

    def on_message_begin(self) -> None:
        """Start the clock of the next request on a kept connection."""
        super().on_message_begin()
        self._head = RequestHead()
        self._is_in_headers, self._has_trailers = True, False
        self._unfinished_bytes = self._framing_bytes = 0
        self._begun += 1
        if self._header_timer is None:
            self._start_clock()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._head.take_target(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep headers; trailers after a chunked body are counted and not used."""
        if self._is_in_headers:
            self._head.take_header(name, value)
            super().on_header(name, value)
        else:
            self._has_trailers = True
            self._head.take_trailer(name, value)

    def on_headers_complete(self) -> None:
        """Stop the clock; from here on the body's bounds hold."""
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise BadRequestError("This is no proxy.")
            self._is_upgrade = True  # what follows isn't parsed yet: see `_without_upgrade`
            return
        self._head.check(self.parser.get_http_version())
        target = httptools.parse_url(self.url)
        if target.path is None:  # of `http://host?a=b`, which proxies are asked for
            self.url = b"/" + (b"?" + target.query if target.query else b"")
        self._is_in_headers, self._is_in_body = False, True
        self._stop_clock()
        self._unread.stop()
        # Uvicorn makes each request a state of its own, before this; `app_state` is shared by all
        # connections.
        self.scope["state"]["connection"] = self._connection
        self._begin_request(target.path or b"/")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Tell the request that its body is whole."""
        if not self._is_upgrade:
            self._is_in_body = False
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on to the next request, or to the answer to an invalid one."""
        is_last = not self.pipeline
        super().on_response_complete()
        if self.is_idle:
            self._unread.start()
        if is_last and self._refusal is not None and not self.transport.is_closing():
            self._answer(self._refusal)

    def _begin_request(self, path: bytes) -> None:  # noqa: ARG002  # for who refuses by it
        """Hand a request to the application, before its body is complete."""
        super().on_headers_complete()

    def _should_upgrade(self) -> bool:
        return False

    def _parse(self, data: bytes) -> bytes:
        """Parse, and return what is to be parsed next."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._without_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as failure:
            # What a callback raises is the context of the parser's error.
            reason = failure.__context__
            self._refuse(reason if isinstance(reason, ServiceError) else BadRequestError())
        return b""

    def _without_upgrade(self) -> bytes:
        """Return the head of a request without its upgrade to another protocol.

        After an upgrade the parser stops and takes no body, so that the body would be read as the
        next request.
        """
        first = b"%b %b HTTP/%b" % (
            *(self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
        )
        self._is_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return without_upgrade(first, self.headers)

    def _bound_head(self, data: bytes) -> None:
        """Refuse a head that is too long: the parser reports a header when it is complete."""
        if self._begun:
            _, _, after = data.rpartition(HEAD_END)
            self._unfinished_bytes = max(1, len(after) - self._body_bytes)
        else:
            self._unfinished_bytes += len(data)
        if self._unfinished_bytes > MAX_HEADER_BYTES:
            self._refuse(HeadersTooLargeError())

    def _bound_framing(self, size: int) -> None:
        """Refuse a body that is mostly framing, which isn't counted as a body's bytes are."""
        self._framing_bytes += size - FRAMING_PER_BYTE * self._body_bytes
        self._framing_bytes = max(0, self._framing_bytes)
        if self._framing_bytes > MAX_HEADER_BYTES:
            self._refuse(
                HeadersTooLargeError()
                if self._has_trailers
                else BodyTooLargeError("What is around the chunks of the body is too large.")
            )

    def _start_clock(self) -> None:
        self._header_timer = self.loop.call_later(self.header_timeout_s, self._time_out)

    def _stop_clock(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _time_out(self) -> None:
        self._stop_clock()
        if self.is_idle:
            self._refuse(HeadersTimeoutError())
        else:
            self._start_clock()  # the earlier request is answered first

    def _refuse(self, error: ServiceError) -> None:
        """Answer an invalid request, after those before it; nothing more is parsed."""
        self._stop_clock()
        if self._refusal is not None or self.transport.is_closing():
            return
        self._refusal = error
        if not self._is_in_body:
            if self.is_idle:
                self._answer(error)
        elif self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # its body is wrong, and it waits for an earlier request
        elif self.cycle.response_started:
            self.transport.close()
        else:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._answer(error)

    def _answer(self, error: ServiceError) -> None:
        is_known = self._is_in_headers or self._is_in_body
        is_head = is_known and self.parser.get_method() == b"HEAD"
        self._finish(refusal(error, target=self.url if is_known else b"", is_head=is_head))

    def _finish(self, answer: bytes) -> None:
        """Answer, and go on reading for a moment: closing on unread data would reset the answer."""
        self._unset_keepalive_if_required()
        self.transport.write(answer)
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)
