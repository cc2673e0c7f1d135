"""The only place where exceptions become error responses."""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from app.core.field_errors import field_errors
from app.core.logs import request_id
from app.core.metrics import Metrics
from app.errors import (
    BadRequestError,
    InternalError,
    InvalidRequestError,
    MethodNotAllowedError,
    NotFoundError,
    RateLimitExceededError,
    ServiceError,
    UnsupportedFieldError,
)
from app.http.error_bodies import (
    HUB_PATHS,
    dialect_of,
    field_path,
    is_openai,
    openai_error,
    openai_status,
    problem,
)

log = logging.getLogger(__name__)

BY_STATUS: Mapping[int, type[ServiceError]] = {
    400: BadRequestError,
    404: NotFoundError,
    405: MethodNotAllowedError,
    429: RateLimitExceededError,
}
# Where OpenAI's clients ask whose `base_url` lacks the end.
WITHOUT_V1 = frozenset(
    {
        "/chat/completions",
        "/completions",
        "/embeddings",
        "/responses",
        "/v1/v1/chat/completions",
    }
)
NO_V1 = "Nothing is served at this path. OpenAI's API is under /v1: base_url has to end with it."
# nginx's number for "the client closed the connection".
CLIENT_LEFT = 499


def error_response(error: ServiceError, *, path: str) -> Response:
    """Return the answer for an error: a problem, or what the dialect of the path has."""
    if dialect := dialect_of(path):
        body, status, kind = dialect(error), error.status, "application/json"
        if is_openai(path):
            body, status = openai_error(error, path=path), openai_status(error)
    else:
        body = problem(error, path=path, request_id=request_id.get())
        status, kind = error.status, "application/problem+json"
    return Response(json.dumps(body), status_code=status, headers=error.headers, media_type=kind)


def to_service_error(failure: Exception) -> ServiceError:
    """Return the `ServiceError` for any exception; an unknown one becomes an `InternalError`."""
    if isinstance(failure, ServiceError):
        return failure
    if isinstance(failure, RequestValidationError):
        return _invalid(failure.errors())
    if isinstance(failure, HTTPException):
        if isinstance(failure.__cause__, ServiceError):
            return failure.__cause__  # FastAPI wraps what is raised while a body is parsed
        return BY_STATUS.get(failure.status_code, InternalError)(headers=failure.headers)
    return InternalError()


def _invalid(failures: Sequence[Any]) -> ServiceError:
    """Return the error of invalid fields; one that only OpenAI accepts has a code of its own."""
    errors = field_errors(failures)
    if errors[0]["type"] != UnsupportedFieldError.code:
        return InvalidRequestError(errors)
    field, hint = field_path(errors[0]["loc"]), failures[0].get("ctx", {}).get("hint")
    detail = f"{field!r} is not supported: {hint}" if hint else None
    return UnsupportedFieldError(field, detail=detail)


class ErrorAnswers:
    """Turns the exceptions that routes raise into error responses, without their messages.

    Args:
        metrics: where they are counted.

    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def response(self, failure: Exception, scope: Scope) -> Response:
        """Count an exception, log it if it is a fault of ours, and return its answer."""
        error = to_service_error(failure)
        if type(error) is NotFoundError and scope["path"] in WITHOUT_V1:
            error = NotFoundError(NO_V1)
        is_fault = isinstance(error, InternalError)
        self._metrics.exceptions.labels(type(failure if is_fault else error).__name__).inc()
        if is_fault:
            fields = {"error": type(failure).__name__}
            log.error("unhandled_error", exc_info=failure, extra=fields)
        if isinstance(error, MethodNotAllowedError):
            error.headers["Allow"] = _allowed(scope) or error.headers.get("Allow", "")
        return error_response(error, path=HUB_PATHS if _is_hub_root(scope) else scope["path"])


def _is_hub_root(scope: Scope) -> bool:
    """Say whether a request is for Hugging Face's route at `/`, where the page is too."""
    return scope["path"] == "/" and "POST" in (getattr(scope.get("route"), "methods", None) or ())


def _allowed(scope: Scope) -> str:
    """Return the methods of a path: Starlette names those of one route, and a path can have two."""
    template = getattr(scope.get("route"), "path", "")
    routes = iter_route_contexts(scope["app"].routes)
    methods = {m for r in routes if r.path == template for m in r.methods or ()}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
