"""The places of a connection's requests, and what becomes of those that get none.

Such a request has its answer when its head is read: no task is made for it, and its body is dropped
by the parser.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

from app.core.request_kinds import RequestKind
from app.errors import NotFoundError, OverloadedError, ServiceError
from app.server.gate import Place, Reason
from app.server.overload import Head, Overload
from app.server.protocol import BoundedHttpProtocol
from app.server.refusal import refusal
from app.server.starting import Start
from app.server.whole import refuse_whole

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

# A larger body is cheaper to get rid of by closing the connection.
SKIPPED_BYTES = 65_536


class GatedHttpProtocol(BoundedHttpProtocol):
    """A connection whose requests are let in by an `Overload`.

    Of requests that a client sends without waiting for answers only the first can be refused: the
    others are answered in order, one at a time, so that a connection never has more than a place.

    Args:
        overload: lets requests in, or has their answers.
        has_probes_only: whether nothing else is served, and other paths are not found.

    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401  # uvicorn's own
        overload: Overload,
        has_probes_only: bool = False,
        **kwargs: Any,  # noqa: ANN401  # uvicorn's own
    ) -> None:
        super().__init__(*args, **kwargs)
        self._overload = overload
        self._has_probes_only = has_probes_only
        self._place: Place | None = None  # of the request that is being answered
        self._incoming: Place | None = None  # of the one whose body is being read
        self._held: Start | None = None  # starts the request, whose body isn't complete
        self._is_skipping = False  # what is being read is the body of a refused one
        self._has_refused = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the places back: the client has left."""
        for place in (self._place, self._incoming):
            if place is not None:
                self._overload.end(place, has_left=True)
        self._place = self._incoming = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Refuse a whole request at once, or parse what was read."""
        answer = refuse_whole(self._overload, data, is_kept=True) if self._may_refuse else None
        if answer is None:
            super().data_received(data)
        else:
            self._has_refused = True
            self.transport.write(answer)
            self._skipped()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, or drop it."""
        if self._is_skipping:
            self._count_body(len(body))
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Count the request: its body is complete."""
        if self._is_skipping:
            self._skipped()
            return
        super().on_message_complete()
        place, self._incoming = self._incoming, None
        if place is None:
            return
        if place is self._place:
            self._overload.begin(place, self._held)
            self._held = None
        else:  # it was answered before, or an earlier request is
            self._overload.gate.arrived(place)

    def on_response_complete(self) -> None:
        """Give the place back, and count the next request of the connection."""
        following = None
        if self.pipeline and not self.transport.is_closing():
            following = self.pipeline[-1][0]
        if self._place is not None:
            self._overload.end(self._place)
            self._place = None
        super().on_response_complete()
        if following is not None and following.more_body:
            self._start_held()
        elif self._place is not None:
            self._overload.begin(self._place, self._held)
            self._held = None

    @property
    def _has_served(self) -> bool:
        return self._has_refused or super()._has_served

    @property
    def _may_refuse(self) -> bool:
        """Whether what is read next begins a request, and it would be refused for its place."""
        return (
            self._overload.is_full(0)
            and self.is_idle
            and self._may_parse
            and not (self._is_skipping or self._is_in_body or self._has_probes_only)
            and not (self._is_in_headers and self._bounds.unfinished)
            and not (self._ahead.has_unparsed or self.flow.write_paused)
            and not self._overload.is_closing()
        )

    def _parse_ahead(self) -> None:
        """Parse; a body that isn't complete then is one that arrives."""
        super()._parse_ahead()
        if self._refusal is not None:
            return
        if self._is_skipping:
            if self._header_timer is None:
                self._start_clock()
        elif self._incoming is not None:
            self._read_on(self._incoming)

    def _begin_request(self, path: bytes) -> None:
        method = self.parser.get_method()
        kind = self._overload.kinds.of(path, method)
        if self._has_probes_only and kind is not RequestKind.PROBE:
            error = NotFoundError()
            answer = refusal(error, target=self.url, is_head=method == b"HEAD")
            self._turn_away(answer, error)
        if self.is_idle:
            place = self._ask(kind, path)
            if place is None:
                return
        else:
            place = Place(kind)
        self._incoming = place
        # The time in which it waits for its turn counts too.
        received_s = self._overload.receive(place, self.headers)
        self.scope["state"] |= {"place": place, "received_s": received_s}
        super()._begin_request(path)

    def _ask(self, kind: RequestKind, path: bytes) -> Place | None:
        """Return the request's place, or answer it."""
        place = self._overload.let_in(kind, self.headers)
        if isinstance(place, Place):
            return place
        method, is_kept = self.parser.get_method(), self._can_keep()
        head = Head(path=path, method=method, headers=self.headers, is_kept=is_kept)
        answer = self._overload.refusal(head)
        if self.flow.write_paused:  # its client sends, and reads no answers
            self._is_skipping = True
            self.transport.abort()
            return None
        if not is_kept or self._overload.is_closing():
            self._turn_away(answer, OverloadedError())
        self.transport.write(answer)
        self._is_skipping = self._has_refused = True
        return None

    def _can_keep(self) -> bool:
        """Return whether the connection can be used again when the body has been skipped."""
        if self.parser.get_http_version() == "1.0" or not self.parser.should_keep_alive():
            return False
        for name, value in self.headers:
            if name in {b"transfer-encoding", b"expect"}:
                return False
            if name == b"content-length" and int(value) > SKIPPED_BYTES:
                return False
        return True

    def _turn_away(self, answer: bytes, error: ServiceError) -> None:
        """Answer and end the connection; what was sent after the head isn't parsed."""
        self._refusal = error
        self._has_refused = True
        self._finish(answer)
        raise error

    def _skipped(self) -> None:
        """Wait for the next request: the refused one has been read to its end."""
        self._is_skipping = self._is_in_body = False
        self._stop_clock()
        self.server_state.total_requests += 1
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        self._unread.start()

    def _start_asgi_task(self, cycle: "RequestResponseCycle", app: "ASGI3Application") -> None:
        """Hold a request until its body is complete, or known to come in parts."""
        self._place = cycle.scope["state"]["place"]
        self._held = partial(super()._start_asgi_task, cycle, app)

    def _start_held(self) -> None:
        if self._held is not None:
            self._held()
            self._held = None

    def _read_on(self, place: Place) -> None:
        """Count a body that comes in parts, or refuse its request: there are too many."""
        if not place.is_arriving:
            if self._overload.gate.has_much_arriving:
                self._overload.note(place.kind, Reason.ARRIVING)
                self._refuse(OverloadedError(retry_after_s=self._overload.gate.retry_after_s))
                return
            self._overload.gate.arrive(place)
        self._start_held()  # or the body would stop where uvicorn keeps no more of it unread

    def _time_out(self) -> None:
        if self._is_skipping:  # it has its answer
            self._stop_clock()
            self.transport.close()
        else:
            super()._time_out()

    def _refuse(self, error: ServiceError) -> None:
        if self._is_skipping:
            self._stop_clock()
            self._refusal = error
            self.transport.close()
        else:
            super()._refuse(error)
