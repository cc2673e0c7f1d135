"""Gives each request its id and its one log line."""

import logging
import random
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.logs import request_id
from app.middleware.exceptions import CLIENT_LEFT

log = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Called every few seconds by machines, so they are logged at DEBUG unless they fail.
PROBES = frozenset({"/health", "/ready", "/metrics"})


def new_id() -> str:
    """Return 32 hexadecimal digits; not a secret, so the slower system randomness isn't needed."""
    return f"{random.getrandbits(128):032x}"  # an id is no secret


class RequestLogMiddleware:
    """Takes over or makes the request id, answers it as `X-Request-ID`, logs `request_done`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        current = sent_id if REQUEST_ID.fullmatch(sent_id) else new_id()
        token = request_id.set(current)
        started = time.perf_counter()
        status = CLIENT_LEFT  # until a response starts
        scope.setdefault("state", {})["received_s"] = time.monotonic()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = current
                headers.update(
                    scope["state"].get("headers", {})
                )  # of the rate limit, from http/guard.py
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            _log_done(scope, status=status, seconds=time.perf_counter() - started)
            request_id.reset(token)


def _log_done(scope: Scope, *, status: int, seconds: float) -> None:
    """Log the route's template, never the path: a path may hold what a user wrote."""
    template = getattr(scope.get("route"), "path", "none")
    level = logging.DEBUG if template in PROBES and status < 500 else logging.INFO  # noqa: PLR2004
    extra = {
        "method": scope["method"],
        "route": template,
        "status": status,
        "duration_ms": round(seconds * 1000, 2),
    }
    log.log(level, "request_done", extra=extra)
