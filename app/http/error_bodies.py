"""The bodies of errors: RFC 9457's problems, and those of other dialects, by their paths."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from app.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    RateLimitExceededError,
    ServiceError,
    TextEmptyError,
)

ErrorBody = Callable[[ServiceError], dict[str, Any]]

TYPE_PREFIX = "urn:ml-api:problem:"
MAX_PATH_CHARS = 256
OPENAI_PATHS = "/v1"
# The field that is at fault where a prompt is too long: by the path, else `messages`.
PROMPT_FIELDS = {
    "/v1/completions": "prompt",
    "/v1/responses": "input",
    "/v1/decisions": "input",
    "/v1/systemone": "state",
}
TOO_MANY = 429
HUB_PATHS, TEI_PATHS = "/hf", "/tei"
# Not all under /v2: /v2/rerank is another dialect's.
INFERENCE_PATHS = ("/v2/models", "/v2/health")
INFERENCE_ROOT = "/v2"
SERVER_ERROR, UNAVAILABLE = 500, 503
# Where OpenAI says 400 and this service says 422 elsewhere.
OPENAI_STATUS = {422: 400}


def problem(error: ServiceError, *, path: str, request_id: str) -> dict[str, Any]:
    """Return the members of a problem body."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "type": TYPE_PREFIX + error.code,
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "instance": quote(path[:MAX_PATH_CHARS]),
        "request_id": request_id,
        "timestamp": now,
        **error.extensions,
    }


def openai_error(error: ServiceError, *, path: str = "") -> dict[str, Any]:
    """Return an error as OpenAI's clients expect it.

    Args:
        error: to be told.
        path: of the request; its fields have names of their own.

    """
    message, param = _message(error), error.extensions.get("field")
    if isinstance(error, ContextLengthExceededError):
        param = PROMPT_FIELDS.get(path, "messages")
    if isinstance(error, ModelNotFoundError):
        param = "model"
    if isinstance(error, InvalidRequestError):
        param = field_path(error.extensions["errors"][0]["loc"])
    kind = _type(error.status)
    return {"error": {"message": message, "type": kind, "param": param, "code": error.code}}


def _type(status: int) -> str:
    """Return OpenAI's word for errors of a status."""
    if status == TOO_MANY:
        return "rate_limit_error"
    return "server_error" if status >= SERVER_ERROR else "invalid_request_error"


def _message(error: ServiceError) -> str:
    """Return what is wrong in one sentence; of invalid fields the first."""
    if not isinstance(error, InvalidRequestError):
        return error.detail
    first = error.extensions["errors"][0]
    path = field_path(first["loc"])
    return f"{path}: {first['msg']}" if path else str(first["msg"])


def plain_error(error: ServiceError) -> dict[str, Any]:
    """Return an error as Hugging Face's clients and the Open Inference Protocol have it."""
    return {"error": _message(error)}


def tei_error(error: ServiceError) -> dict[str, Any]:
    """Return an error as clients of text-embeddings-inference expect it."""
    return {"error": _message(error), "error_type": _tei_type(error)}


def _tei_type(error: ServiceError) -> str:
    if isinstance(error, OverloadedError | RateLimitExceededError):
        return "Overloaded"
    if isinstance(error, TextEmptyError):
        return "Empty"
    if error.status == UNAVAILABLE:
        return "Unhealthy"
    return "Backend" if error.status >= SERVER_ERROR else "Validation"


def field_path(loc: Sequence[str | int]) -> str | None:
    """Return where a field is, as OpenAI writes it: `messages[0].role`."""
    path = ""
    for part in loc[1:]:  # the first is "body", "query" or "path"
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):  # a tag of a union
            path += f".{part}" if path else part
    return path or None


def is_openai(path: str) -> bool:
    """Say whether a path speaks OpenAI's dialect."""
    return _is_below(path, OPENAI_PATHS)


def _is_below(path: str, *starts: str) -> bool:
    return any(path == start or path.startswith(f"{start}/") for start in starts)


def dialect_of(path: str) -> ErrorBody | None:
    """Return what makes the errors of a path; None: they are problems."""
    if is_openai(path):
        return openai_error
    if _is_below(path, TEI_PATHS):
        return tei_error
    is_plain = path == INFERENCE_ROOT or _is_below(path, HUB_PATHS, *INFERENCE_PATHS)
    return plain_error if is_plain else None


def openai_status(error: ServiceError | type[ServiceError]) -> int:
    """Return the status under `/v1`."""
    return OPENAI_STATUS.get(error.status, error.status)
