"""The one layer around all routes: id, clock, body, disconnect, errors, metrics and log line."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.client_requests import ClientRequests
from app.core.logs import request_id
from app.core.version_choice import VersionChoice, version_choice
from app.errors import NotReadyError
from app.http.json_route import Remembered, RememberedRoutes
from app.middleware.body_limit import (
    Body,
    BodyLimits,
    ClientLeftError,
    StreamedBody,
    announced_bytes,
    has_body,
)
from app.middleware.disconnect import Disconnect
from app.middleware.exceptions import CLIENT_LEFT, ErrorAnswers
from app.middleware.http_metrics import HttpMetrics
from app.middleware.logging import REQUEST_ID, log_done, new_id
from app.middleware.request_trace import RequestTrace, begin_trace

if TYPE_CHECKING:
    from app.core.telemetry import Telemetry

CLOSE = (b"connection", b"close")
ENDING = "The service is shutting down."
NO_BODY: Message = {"type": "http.response.body", "body": b""}


class _EnoughError(Exception):
    """The headers are sent, and the method is HEAD: a stream can stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontParts:
    """What all requests have in common.

    Args:
        limits: of bodies.
        metrics: where requests are counted.
        errors: answers exceptions.
        telemetry: makes traces of requests; None: they aren't traced.
        clients: where those that run models are counted.

    """

    limits: BodyLimits
    metrics: HttpMetrics
    errors: ErrorAnswers
    telemetry: "Telemetry | None" = None
    clients: ClientRequests = field(default_factory=ClientRequests)


class Front:
    """Serves each request as an `Exchange`; what isn't HTTP passes through.

    Args:
        app: the routes.
        parts: what all requests have in common.

    """

    def __init__(self, app: ASGIApp, parts: FrontParts) -> None:
        self.app = app
        self.parts = parts
        self.routes = RememberedRoutes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await Exchange(self, scope, receive, send).run()
        else:
            await self.app(scope, receive, send)


class Exchange:
    """One request and its answer.

    Args:
        front: where it came in.
        scope: of the request.
        receive: of the server.
        send: of the server.

    """

    def __init__(self, front: Front, scope: Scope, receive: Receive, send: Send) -> None:
        self._front = front
        self._method: str = scope["method"]
        # Routes see GET instead of HEAD; the server needs to see HEAD, which has no body.
        self._scope = scope if self._method != "HEAD" else {**scope, "method": "GET"}
        self._receive = receive
        self._send = send
        # The first of each name counts.
        self._headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        sent_id = self._headers.get(b"x-request-id", b"").decode("latin-1")
        self._id = sent_id if REQUEST_ID.fullmatch(sent_id) else new_id()
        self._version = VersionChoice(
            wanted=self._text(b"x-model-version"), session=self._text(b"x-session-id")
        )
        self._body: Body | None = None
        self._disconnect: Disconnect | None = None
        self._trace: RequestTrace | None = None
        self._status = 0  # until the answer begins
        self._seconds = 0.0  # until it began
        self._out_bytes = 0  # that it announced

    def _text(self, name: bytes) -> str | None:
        """Return a header of the request; None where it is missing or empty."""
        value = self._headers.get(name)
        return value.decode("latin-1") if value else None

    async def run(self) -> None:
        """Serve it; count and log it.

        Raises:
            CancelledError: the server shuts down; the client has been told.
            Exception: from the routes, once the answer had begun: it can only be cut.

        """
        token, version = request_id.set(self._id), version_choice.set(self._version)
        scope, metrics = self._scope, self._front.parts.metrics
        # The server has set it: a request may have waited there for its turn.
        state = scope.setdefault("state", {})
        self._began_s: float = state.setdefault("received_s", time.monotonic())
        found = self._front.routes.find(scope)
        route = metrics.route_of(scope) if found is None else found.name
        metrics.begin(self._method, route)
        if (telemetry := self._front.parts.telemetry) is not None:
            self._trace = begin_trace(
                telemetry, scope, self._headers, method=self._method, route=route, id_=self._id
            )
        clients = self._front.parts.clients
        runs_model = clients.begin(self._method, route)
        try:
            await self._serve(found, route)
        finally:
            if runs_model:
                clients.end()
            status = self._status or CLIENT_LEFT
            metrics.end(
                self._method,
                route,
                status=status,
                in_bytes=announced_bytes(self._headers),
                out_bytes=self._out_bytes,
                seconds=self._seconds,
                exemplar=None if self._trace is None else self._trace.exemplar,
            )
            seconds = time.monotonic() - self._began_s
            log_done(scope, method=self._method, status=status, seconds=seconds)
            if self._trace is not None:
                self._trace.end(status)
            version_choice.reset(version)
            request_id.reset(token)

    async def _serve(self, found: Remembered | None, route: str) -> None:
        """Answer, whatever happens."""
        try:
            await self._route(found, route)
        except asyncio.CancelledError:
            if self._disconnect is None or not self._disconnect.has_left:
                # The time for shutting down is over, and the client is still connected.
                if not self._status:
                    await self._fail(NotReadyError(ENDING, retry_after_s=1))
                raise
            self._disconnect.handler.uncancel()
            await self._note_left()
        except ClientLeftError:
            await self._note_left()
        except _EnoughError:
            pass
        except Exception as failure:  # noqa: BLE001  # whatever it is, the client gets an answer
            await self._fail(failure)
        finally:
            if self._disconnect is not None:
                self._disconnect.stop()
            if self._body is not None:
                self._body.release()

    async def _route(self, found: Remembered | None, route: str) -> None:
        """Let the route answer: as is known of its path, or by FastAPI's way.

        Args:
            found: what is known of it.
            route: its name, to be remembered.

        """
        scope, receive = self._scope, self._receive
        if has_body(self._headers):
            limits = self._front.parts.limits
            if limits.is_streamed(scope):
                self._body = StreamedBody(scope, receive, self._headers, limits=limits)
                receive = self._body.receive
            else:
                self._body = Body(scope, receive, self._headers, limits=limits)
                receive = self.receive
        if found is not None:
            request = found.handler.request_type(scope, receive)
            response = await found.handler.answer(request)
            if response is not None:
                await response(scope, receive, self.send)
                return
            receive = request.replay
        await self._front.app(scope, receive, self.send)
        self._front.routes.remember(scope, route)

    async def receive(self) -> Message:
        """Return the body, and then wait for the client to leave: nothing else can follow."""
        assert self._body is not None  # noqa: S101  # others receive from the server
        if self._disconnect is not None:
            return await self._disconnect.wait()
        message = await self._body.receive()
        self._disconnect = Disconnect(self._scope, self._receive)
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            await self._send(await self._begin(message))
            return
        has_more = message.get("more_body", False)
        if self._disconnect is not None and not has_more:
            self._disconnect.stop()  # what runs after the answer goes on without its client
        if self._method != "HEAD":
            await self._send(message)
            return
        await self._send(NO_BODY)
        if has_more:
            raise _EnoughError

    async def _begin(self, start: Message) -> Message:
        """Return the first message of the answer, with the headers that all answers have."""
        headers = [*start["headers"], (b"x-request-id", self._id.encode())]
        if (version := self._version.answered) is not None:
            headers.append((b"x-model-version", _printable(version)))
        for name, value in self._scope["state"].get("headers", {}).items():
            headers.append((name.lower().encode(), value.encode("latin-1")))  # of the rate limit
        if self._body is not None and not self._body.is_read and not await self._body.discard():
            headers.append(CLOSE)
        self._status = start["status"]
        self._seconds = time.monotonic() - self._began_s
        self._out_bytes = announced_bytes(dict(headers))
        return {"type": "http.response.start", "status": self._status, "headers": headers}

    async def _fail(self, failure: Exception) -> None:
        """Answer an exception.

        Raises:
            Exception: the same, if the answer has begun: all that can be done is to cut it.

        """
        response = self._front.parts.errors.response(failure, self._scope)
        if self._trace is not None:
            self._trace.failure = failure
        if self._status:
            raise failure
        await response(self._scope, self._receive, self.send)

    async def _note_left(self) -> None:
        """Have the answer that log and metrics see; the server sends it nowhere."""
        self._status = CLIENT_LEFT
        await self._send({"type": "http.response.start", "status": CLIENT_LEFT, "headers": []})
        await self._send(NO_BODY)


def _printable(version: str) -> bytes:
    """Return a version as a header: that of a Python class may be any text."""
    if not (version.isascii() and version.isprintable()):
        version = "".join(c if c.isascii() and c.isprintable() else "?" for c in version)
    return version.encode("ascii")
