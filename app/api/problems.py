"""How errors appear in the OpenAPI document: one schema, an example for each code."""

from collections import defaultdict
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    DeadlineExceededError,
    InferenceFailedError,
    InternalError,
    InvalidRequestError,
    MalformedJsonError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    UnsupportedMediaTypeError,
)
from app.models.schemas import Problem

Responses = dict[int | str, dict[str, Any]]
REF = "#/components/schemas/{model}"

# A request to any path can carry a body that is too large or too slow.
ANYWHERE = (InternalError, BodyTooLargeError, BodyTimeoutError)
WITH_BODY = (MalformedJsonError, UnsupportedMediaTypeError, InvalidRequestError)
WITH_MODEL = (
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    OverloadedError,
    NotReadyError,
    DeadlineExceededError,
    InferenceFailedError,
)


def problems(*errors: type[ServiceError]) -> Responses:
    """Return the `responses` argument of a route that can answer these errors."""
    by_status: dict[int, list[type[ServiceError]]] = defaultdict(list)
    every: tuple[type[ServiceError], ...] = (*ANYWHERE, *errors)
    for error in every:
        by_status[error.status].append(error)
    return {status: _response(kinds) for status, kinds in sorted(by_status.items())}


def _response(kinds: list[type[ServiceError]]) -> dict[str, Any]:
    """Describe all errors of one status."""
    content = {
        "schema": {"$ref": REF.format(model="Problem")},
        "examples": {kind.code: {"value": _example(kind)} for kind in kinds},
    }
    titles = dict.fromkeys(kind.title for kind in kinds)
    described: dict[str, Any] = {
        "description": " / ".join(titles),
        "content": {"application/problem+json": content},
    }
    if any(kind.status == 503 for kind in kinds):  # noqa: PLR2004
        wait = {
            "description": "Seconds to wait, where waiting helps.",
            "schema": {"type": "integer"},
        }
        described["headers"] = {"Retry-After": wait}
    return described


def _example(kind: type[ServiceError]) -> dict[str, Any]:
    """Return a body of one kind of error."""
    shown = {
        "type": f"urn:ml-api:problem:{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": (kind.__doc__ or "").strip(),
        "code": kind.code,
        "instance": "/predict",
        "request_id": "0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
        "timestamp": "2026-11-22T12:00:00.000Z",
    }
    if kind is InvalidRequestError:
        shown["errors"] = [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}]
    return shown


def document_problems(app: FastAPI) -> None:
    """Let the app's OpenAPI document hold the problem schema instead of FastAPI's own."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = made["components"]["schemas"]
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            problem = Problem.model_json_schema(ref_template=REF)
            schemas.update(problem.pop("$defs", {}))
            schemas["Problem"] = problem
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to do it
