"""Errors as they cross from the engine's process: the same class, with the same fields."""

from collections.abc import Mapping
from typing import Any, Final

from app.engines.rows import RowsRefusedError
from app.errors import (
    EngineError,
    InternalError,
    ServiceError,
    StartupError,
    all_service_errors,
)

MAX_MESSAGE_CHARS: Final = 2_000
# A front end logs the message of this one, because no text can be in it.
OF_ENGINES: Final[Mapping[str, type[Exception]]] = {
    kind.__name__: kind for kind in (RowsRefusedError, MemoryError)
}


class EngineProcessError(Exception):
    """What an engine raised in its process; a subclass has the name of the class there."""


def write_failure(failure: Exception) -> dict[str, Any]:
    """Return an error as JSON."""
    if isinstance(failure, ServiceError):
        return {
            "code": failure.code,
            "detail": failure.detail,
            "retry_after_s": failure.retry_after_s,
            "extensions": failure.extensions,
        }
    return {"raised": type(failure).__name__, "message": str(failure)[:MAX_MESSAGE_CHARS]}


def read_failure(written: Mapping[str, Any]) -> Exception:
    """Return the error that `write_failure` wrote.

    Raises:
        LookupError, TypeError: it is something else.

    """
    if "code" in written:
        return _service_error(written)
    name, message = str(written["raised"]), str(written["message"])
    kind: type[Exception] = OF_ENGINES.get(name) or type(name, (EngineProcessError,), {})
    return kind(message)


def _service_error(written: Mapping[str, Any]) -> ServiceError:
    kinds = {kind.code: kind for kind in all_service_errors()}
    kind = kinds.get(written["code"], InternalError)
    # Not by its own `__init__`, which may make its fields of others.
    failure: ServiceError = kind.__new__(kind)
    ServiceError.__init__(
        failure,
        written["detail"],
        retry_after_s=written["retry_after_s"],
        extensions=written["extensions"],
    )
    return failure


def read_refusal(reason: str, line: str) -> StartupError:
    """Return why a model can't be loaded, of its code and its message."""
    kinds = {kind.reason: kind for kind in StartupError.__subclasses__()}
    return kinds.get(reason, EngineError)(line)
