"""The bodies of errors: RFC 9457's problems, and OpenAI's errors under `/v1`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from app.errors import (
    ContextLengthExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    ServiceError,
)

TYPE_PREFIX = "urn:ml-api:problem:"
MAX_PATH_CHARS = 256
OPENAI_PATHS = "/v1"
SERVER_ERROR = 500
TOO_MANY = 429
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


def openai_error(error: ServiceError) -> dict[str, Any]:
    """Return an error as OpenAI's clients expect it."""
    message, param = error.detail, error.extensions.get("field")
    if isinstance(error, ContextLengthExceededError):
        param = "messages"
    if isinstance(error, ModelNotFoundError):
        param = "model"
    if isinstance(error, InvalidRequestError):
        first = error.extensions["errors"][0]
        param = field_path(first["loc"])
        message = f"{param}: {first['msg']}" if param else first["msg"]
    kind = _type(error.status)
    return {"error": {"message": message, "type": kind, "param": param, "code": error.code}}


def _type(status: int) -> str:
    """Return OpenAI's word for errors of a status."""
    if status == TOO_MANY:
        return "rate_limit_error"
    return "server_error" if status >= SERVER_ERROR else "invalid_request_error"


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
    return path == OPENAI_PATHS or path.startswith(f"{OPENAI_PATHS}/")


def openai_status(error: ServiceError | type[ServiceError]) -> int:
    """Return the status under `/v1`."""
    return OPENAI_STATUS.get(error.status, error.status)
