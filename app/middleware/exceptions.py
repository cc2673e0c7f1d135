"""The only place where exceptions become error responses."""

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core.logs import request_id
from app.core.metrics import Metrics
from app.errors import (
    BadRequestError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    NotReadyError,
    RateLimitExceededError,
    ServiceError,
    UnsupportedFieldError,
)
from app.http.error_bodies import field_path, is_openai, openai_error, openai_status, problem

log = logging.getLogger(__name__)

BY_STATUS: Mapping[int, type[ServiceError]] = {
    400: BadRequestError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    429: RateLimitExceededError,
}
# A field's name comes from the client and is returned in `loc`.
MAX_LOC_CHARS = 64
# A body of a megabyte can be wrong in a hundred thousand places.
MAX_FIELD_ERRORS = 50
# nginx's number for "the client closed the connection".
CLIENT_LEFT = 499


def error_response(error: ServiceError, *, path: str) -> Response:
    """Return the answer for an error: a problem, or OpenAI's shape under `/v1`."""
    if is_openai(path):
        body, status, kind = openai_error(error), openai_status(error), "application/json"
    else:
        body = problem(error, path=path, request_id=request_id.get())
        status, kind = error.status, "application/problem+json"
    return Response(json.dumps(body), status_code=status, headers=error.headers, media_type=kind)


def to_service_error(failure: Exception) -> ServiceError:
    """Return the `ServiceError` for any exception; an unknown one becomes an `InternalError`."""
    if isinstance(failure, ServiceError):
        return failure
    if isinstance(failure, RequestValidationError):
        return _invalid(field_errors(failure.errors()))
    if isinstance(failure, HTTPException):
        if isinstance(failure.__cause__, ServiceError):
            return failure.__cause__  # FastAPI wraps what is raised while a body is parsed
        return BY_STATUS.get(failure.status_code, InternalError)(headers=failure.headers)
    return InternalError()


def _invalid(errors: list[dict[str, Any]]) -> ServiceError:
    """Return the error of invalid fields; one that only OpenAI accepts has a code of its own."""
    if errors[0]["type"] == UnsupportedFieldError.code:
        return UnsupportedFieldError(field_path(errors[0]["loc"]))
    return InvalidRequestError(errors)


def field_errors(errors: Sequence[Any]) -> list[dict[str, Any]]:
    """Return which fields are wrong and how, without their values."""
    return [
        {"loc": [_clean(part) for part in e["loc"]], "msg": e["msg"], "type": e["type"]}
        for e in errors[:MAX_FIELD_ERRORS]
    ]


async def answer_client_left(send: Send) -> None:
    """Send an answer that only metrics and log see: the server drops it."""
    await send({"type": "http.response.start", "status": CLIENT_LEFT, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def _clean(part: str | int) -> str | int:
    """Shorten a field name of the client's, and replace what isn't valid Unicode."""
    if isinstance(part, int):
        return part
    return part[:MAX_LOC_CHARS].encode("utf-8", "replace").decode()


class ErrorBoundaryMiddleware:
    """Turns exceptions that no handler has caught into error responses, without their messages."""

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
            # The time for shutting down is over, and the client is still connected.
            if not is_started:
                ending = NotReadyError("The service is shutting down.", retry_after_s=1)
                await error_response(ending, path=scope["path"])(scope, receive, send)
            raise
        except Exception as failure:
            error = to_service_error(failure)
            self._metrics.exceptions.labels(type(failure).__name__).inc()
            if isinstance(error, InternalError):
                log.exception("unhandled_error", extra={"error": type(failure).__name__})
            if is_started:
                raise  # part of the answer is sent: all that can be done is to cut the connection
            await error_response(error, path=scope["path"])(scope, receive, send)


def _allowed(app: FastAPI, request: Request) -> str:
    """Return the methods of a path: Starlette names those of one route, and a path can have two."""
    template = getattr(request.scope.get("route"), "path", "")
    methods = {method.upper() for method in app.openapi()["paths"].get(template, {})}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def install(app: FastAPI, *, metrics: Metrics) -> None:
    """Register the handlers for what routes and the framework raise."""

    async def answer(request: Request, failure: Exception) -> Response:
        error = to_service_error(failure)
        if isinstance(error, MethodNotAllowedError):
            error.headers["Allow"] = _allowed(app, request) or error.headers.get("Allow", "")
        metrics.exceptions.labels(type(error).__name__).inc()
        return error_response(error, path=request.scope["path"])

    for kind in (ServiceError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, answer)
