"""Answers requests that the service makes itself, by the routes and with the errors of all others.

They don't pass the layer in front: they have no connection, and no place among clients' requests.
"""

import time
from typing import TYPE_CHECKING

from starlette.types import Message, Scope

from app.core.logs import request_id
from app.middleware.front import FrontParts
from app.services.own_requests import OwnAnswer, OwnRequest

if TYPE_CHECKING:
    from app.middleware.stack import App

JSON = b"application/json"


class _Collected:
    """Receives a request's body, and collects what is sent."""

    def __init__(self, body: bytes) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._body: bytes | None = body
        self._pieces: list[bytes] = []

    async def receive(self) -> Message:
        """Return the body, once; then its sender has nothing more to say."""
        body, self._body = self._body, None
        if body is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Collect a part of the answer."""
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self._pieces.append(bytes(message.get("body", b"")))

    def answer(self) -> OwnAnswer:
        """Return the whole."""
        seconds = self.headers.get(b"retry-after", b"")
        return OwnAnswer(
            status=self.status,
            body=b"".join(self._pieces),
            retry_after_s=int(seconds) if seconds.isdigit() else None,
        )


class InnerRequests:
    """Answers own requests by the routes of an app.

    Args:
        app: whose routes they are.
        parts: of the layer around all routes.

    """

    def __init__(self, app: "App", parts: FrontParts) -> None:
        self.clients = parts.clients
        self._app = app
        self._errors = parts.errors

    async def answer(self, request: OwnRequest) -> OwnAnswer:
        """Answer a request; see `OwnRequests`."""
        collected, scope = _Collected(request.body), self._scope(request)
        token = request_id.set(request.request_id)
        try:
            await self._app.inner(scope, collected.receive, collected.send)
        except Exception as failure:  # noqa: BLE001  # whatever it is, it has an answer
            collected = _Collected(b"")
            response = self._errors.response(failure, scope)
            await response(scope, collected.receive, collected.send)
        finally:
            request_id.reset(token)
        return collected.answer()

    def _scope(self, request: OwnRequest) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": request.path,
            "raw_path": request.path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                (b"content-type", JSON),
                (b"content-length", str(len(request.body)).encode()),
                (b"x-request-id", request.request_id.encode()),
            ],
            "client": None,
            "server": None,
            "app": self._app,
            "state": {
                "received_s": time.monotonic(),
                "caller": request.caller,
                "is_allowed": True,  # what `Guard` would check was checked
            },
        }
