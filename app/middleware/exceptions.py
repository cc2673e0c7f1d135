"""The only place that makes error bodies: problem+json, as RFC 9457 has it."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    BadRequestError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    NotReadyError,
    ServiceError,
)
from app.observability.logs import request_id
from app.observability.metrics import Metrics

log = logging.getLogger(__name__)

TYPE_PREFIX = "urn:ml-api:problem:"
BY_STATUS: Mapping[int, type[ServiceError]] = {
    400: BadRequestError,
    404: NotFoundError,
    405: MethodNotAllowedError,
}
# A field's name comes from the client and is answered in `loc`.
MAX_LOC_CHARS = 64
MAX_PATH_CHARS = 256
# Nobody reads more, and a body of a megabyte can be wrong in a hundred thousand places.
MAX_FIELD_ERRORS = 50
# nginx's number for "the client closed the connection".
CLIENT_LEFT = 499


def problem(error: ServiceError, *, path: str) -> dict[str, Any]:
    """Return the members of a problem body."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "instance": quote(path[:MAX_PATH_CHARS]),
        "request_id": request_id.get(),
        "timestamp": now,
        **error.extensions,
    }


def problem_response(error: ServiceError, *, path: str) -> Response:
    """Return the answer for an error."""
    return Response(
        json.dumps(problem(error, path=path)),
        status_code=error.status,
        headers=error.headers,
        media_type="application/problem+json",
    )


def to_service_error(failure: Exception) -> ServiceError:
    """Give any exception its place in our tree; what isn't known there says nothing of itself."""
    if isinstance(failure, ServiceError):
        return failure
    if isinstance(failure, RequestValidationError):
        return InvalidRequestError(field_errors(failure.errors()))
    if isinstance(failure, HTTPException):
        if isinstance(failure.__cause__, ServiceError):
            return failure.__cause__  # FastAPI wraps what is raised while a body is parsed
        return BY_STATUS.get(failure.status_code, InternalError)(headers=failure.headers)
    return InternalError()


def field_errors(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Say which fields are wrong and how, without what was sent."""
    return [
        {"loc": [_clean(part) for part in e["loc"]], "msg": e["msg"], "type": e["type"]}
        for e in errors[:MAX_FIELD_ERRORS]
    ]


async def answer_nobody(send: Send) -> None:
    """Tell metrics and log that the client has left; the server drops what is sent to nobody."""
    await send({"type": "http.response.start", "status": CLIENT_LEFT, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _clean(part: str | int) -> str | int:
    """Cut a field name that a client made up to something that any reader can show."""
    if isinstance(part, int):
        return part
    return part[:MAX_LOC_CHARS].encode("utf-8", "replace").decode()


class ErrorBoundaryMiddleware:
    """Answers what no handler below has answered; nothing of it reaches the client."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_started = False

        async def watch(message: Message) -> None:
            nonlocal is_started
            is_started = is_started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            # The server's time to shut down is over, and the client is still there.
            if not is_started:
                late = NotReadyError("The service is shutting down.", retry_after_s=1)
                await problem_response(late, path=scope["path"])(scope, receive, send)
            raise
        except Exception as failure:
            error = to_service_error(failure)
            self._metrics.exceptions.labels(type(failure).__name__).inc()
            if isinstance(error, InternalError):
                log.exception("unhandled_error", extra={"error": type(failure).__name__})
            if is_started:
                raise  # half an answer is out: cutting the connection is all that is left
            await problem_response(error, path=scope["path"])(scope, receive, send)


def install(app: FastAPI, *, metrics: Metrics) -> None:
    """Register the handlers for what routes and the framework raise."""

    async def answer(request: Request, failure: Exception) -> Response:
        error = to_service_error(failure)
        metrics.exceptions.labels(type(error).__name__).inc()
        return problem_response(error, path=request.scope["path"])

    for kind in (ServiceError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
