"""One connection: bounds what it sends before a request is complete, and answers invalid ones."""

import asyncio
from typing import Any

import httptools

from app.core.connection import Connection
from app.errors import BadRequestError, HeadersTimeoutError, ServiceError
from app.server.http_only import HttpOnlyProtocol
from app.server.message_bounds import MessageBounds
from app.server.read_ahead import MOST_WAITING, PIECE_BYTES, ReadAhead
from app.server.refusal import refusal
from app.server.request_head import RequestHead
from app.server.unread import UNREAD_S, Unread

# For a connection that sends nothing, or a byte at a time.
HEADER_TIMEOUT_S = 20
LINGER_S = 2


class BoundedHttpProtocol(HttpOnlyProtocol):
    """Uvicorn's protocol with bounds in bytes and in time, and with errors of ours."""

    header_timeout_s: float = HEADER_TIMEOUT_S
    unread_s: float = UNREAD_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*args, **kwargs)
        self._head = RequestHead()
        self._bounds = MessageBounds()
        self._body_left = 0  # of the length that was announced
        self._is_in_headers = True
        self._is_in_body = False
        self._has_trailers = False
        self._refusal: ServiceError | None = None
        self._header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        """Start the clock of the first request."""
        super().connection_made(transport)
        self._ahead = self.flow = ReadAhead(transport)
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
        self._ahead.add(data)
        self._parse_ahead()
        is_between = not self._is_in_headers and not self._is_in_body
        has_clock = self._header_timer is not None or self.timeout_keep_alive_task is not None
        if is_between and self.is_idle and not has_clock:
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
        is_between = not (self._is_in_headers and self._bounds.unfinished)
        return self._has_served and self.is_idle and is_between

    def on_message_begin(self) -> None:
        """Start the clock of the next request on a kept connection."""
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self._head = RequestHead()
        self._is_in_headers, self._has_trailers = True, False
        self._bounds.begin_message()
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
        if self._ignores_head():
            return
        self._head.check(self.parser.get_http_version())
        target = httptools.parse_url(self.url)
        if target.path is None:  # of `http://host?a=b`, which proxies are asked for
            self.url = b"/" + (b"?" + target.query if target.query else b"")
        self._is_in_headers, self._is_in_body = False, True
        self._body_left = self._head.length
        self._stop_clock()
        if not self.flow.write_paused:
            self._unread.stop()
        # Uvicorn makes each request a state of its own, before this; `app_state` is shared by all
        # connections.
        self.scope["state"]["connection"] = self._connection
        self._begin_request(target.path or b"/")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._count_body(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Tell the request that its body is whole."""
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
        elif self._ahead.has_unparsed:
            self.loop.call_soon(self._parse_ahead)  # when the next request has begun

    def pause_writing(self) -> None:
        """Bound the time for which a request waits until its client reads."""
        super().pause_writing()
        self._unread.start()

    def resume_writing(self) -> None:
        """Let it go on: the client has read."""
        super().resume_writing()
        if not self.is_idle:
            self._unread.stop()

    def _begin_request(self, path: bytes) -> None:  # noqa: ARG002  # for who refuses by it
        """Hand a request to the application, before its body is complete."""
        super().on_headers_complete()

    def _count_body(self, size: int) -> None:
        self._bounds.take_body(size)
        self._body_left -= size

    def _parse_ahead(self) -> None:
        """Parse what was read, until enough requests wait; the rest when some are answered."""
        ahead = self._ahead
        while self._may_parse and ahead.has_unparsed and len(self.pipeline) < MOST_WAITING:
            # A body of a known length has no requests in it.
            self._take(ahead.take(max(PIECE_BYTES, self._body_left)))
        if not self._may_parse:
            ahead.drop()
        elif ahead.has_unparsed:
            ahead.hold()
        else:
            ahead.release()

    @property
    def _may_parse(self) -> bool:
        return self._refusal is None and not self.transport.is_closing()

    def _take(self, piece: bytes) -> None:
        was_in_body = self._is_in_body
        self._bounds.begin_piece()
        try:
            self.feed(piece)
            if self._is_in_headers:
                self._bounds.check_head(piece)
            elif self._is_in_body and was_in_body:
                self._bounds.check_framing(len(piece), has_trailers=self._has_trailers)
        except ServiceError as error:
            self._refuse(error)
        except httptools.HttpParserError as failure:
            # What a callback raises is the context of the parser's error.
            reason = failure.__context__
            self._refuse(reason if isinstance(reason, ServiceError) else BadRequestError())

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
        self._ahead.drop()
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
        self._ahead.drop()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_S, self.transport.close)
