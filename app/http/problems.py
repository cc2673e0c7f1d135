"""How errors appear in the OpenAPI document: a schema per dialect, an example per code."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from app.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    ContextLengthExceededError,
    DeadlineExceededError,
    ForbiddenError,
    InferenceFailedError,
    InternalError,
    InvalidRequestError,
    MalformedJsonError,
    ModelCrashedError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    ModelVersionNotFoundError,
    NotReadyError,
    OptionsRefusedError,
    OverloadedError,
    RateLimitExceededError,
    ServiceError,
    UnauthorizedError,
    UnsupportedMediaTypeError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
    UpstreamUnreachableError,
)
from app.http.error_bodies import openai_error, openai_status

Responses = dict[int | str, dict[str, Any]]
Kinds = Sequence[type[ServiceError]]
REF = "#/components/schemas/{model}"

# A request to any path can carry a body that is too large or too slow.
ANYWHERE = (InternalError, BodyTooLargeError, BodyTimeoutError)
FIELD_ERRORS = [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}]
WITH_BODY = (MalformedJsonError, UnsupportedMediaTypeError, InvalidRequestError)
WITH_KEY = (UnauthorizedError, ForbiddenError, RateLimitExceededError)
WITH_MODEL = (
    ModelNotFoundError,
    ModelVersionNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
    OverloadedError,
    NotReadyError,
    DeadlineExceededError,
    InferenceFailedError,
)
WITH_PROCESS = (*WITH_MODEL, ModelCrashedError)
WITH_CHAT = (
    *WITH_MODEL,
    ContextLengthExceededError,
    OptionsRefusedError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
    UpstreamUnreachableError,
)


def problems(*errors: type[ServiceError]) -> Responses:
    """Return the `responses` argument of a route that can answer these errors."""
    grouped = _group((*ANYWHERE, *errors), lambda kind: kind.status)
    return {
        status: _response(kinds, "application/problem+json", model="Problem", example=_example)
        for status, kinds in grouped.items()
    }


def openai_problems(*errors: type[ServiceError]) -> Responses:
    """Return the same for a route under `/v1`."""
    grouped = _group((*ANYWHERE, *errors), openai_status)
    return {
        status: _response(kinds, "application/json", model="OpenAiError", example=_openai_example)
        for status, kinds in grouped.items()
    }


def _group(
    errors: Kinds, status_of: Callable[[type[ServiceError]], int]
) -> dict[int, list[type[ServiceError]]]:
    """Return the errors by status, the lowest first."""
    by_status: dict[int, list[type[ServiceError]]] = defaultdict(list)
    for error in errors:
        by_status[status_of(error)].append(error)
    return dict(sorted(by_status.items()))


def _response(
    kinds: Kinds,
    media_type: str,
    *,
    model: str,
    example: Callable[[type[ServiceError]], dict[str, Any]],
) -> dict[str, Any]:
    """Describe all errors of one status."""
    content = {
        "schema": {"$ref": REF.format(model=model)},
        "examples": {kind.code: {"value": example(kind)} for kind in kinds},
    }
    titles = dict.fromkeys(kind.title for kind in kinds)
    described: dict[str, Any] = {
        "description": " / ".join(titles),
        "content": {media_type: content},
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
    body = {
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
        body["errors"] = FIELD_ERRORS
    return body


def _openai_example(kind: type[ServiceError]) -> dict[str, Any]:
    """Return a body of one kind of error, as OpenAI has it."""
    return openai_error(
        InvalidRequestError(FIELD_ERRORS) if kind is InvalidRequestError else kind()
    )
