"""Every error the service knows, with its HTTP status, stable code and title.

A `ServiceError` becomes a problem response (RFC 9457); its docstring is the default detail. A
`StartupError` never reaches a client: it is one readable line for the operator.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class ServiceError(Exception):
    """The request could not be served."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal server error"

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip()
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        self.extensions = dict(extensions or {})
        super().__init__(self.detail)


class InternalError(ServiceError):
    """Something failed inside the service; the log has it under this request id."""


class MalformedJsonError(ServiceError):
    """The body is not valid JSON in UTF-8."""

    status = 400
    code = "malformed_json"
    title = "Malformed JSON"


class BadRequestError(ServiceError):
    """The request could not be understood."""

    status = 400
    code = "bad_request"
    title = "Bad request"


class NotFoundError(ServiceError):
    """Nothing is served at this path."""

    status = 404
    code = "not_found"
    title = "Not found"


class ModelNotFoundError(ServiceError):
    """There is no such model for this task; GET /models lists what is served."""

    status = 404
    code = "model_not_found"
    title = "Model not found"


class MethodNotAllowedError(ServiceError):
    """The path is not served with this method; the Allow header names those that are."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class BodyTimeoutError(ServiceError):
    """The body did not arrive in time."""

    status = 408
    code = "body_timeout"
    title = "Request timeout"


class ModelNameConflictError(ServiceError):
    """The path and the body name different models."""

    status = 409
    code = "model_name_conflict"
    title = "Two models named"


class BodyTooLargeError(ServiceError):
    """The body is larger than the service accepts."""

    status = 413
    code = "body_too_large"
    title = "Content too large"


class UnsupportedMediaTypeError(ServiceError):
    """The body must be sent as Content-Type: application/json."""

    status = 415
    code = "unsupported_media_type"
    title = "Unsupported media type"


class InvalidRequestError(ServiceError):
    """The request does not match the schema; `errors` names each field."""

    status = 422
    code = "invalid_request"
    title = "Invalid request"

    def __init__(self, errors: Sequence[Mapping[str, Any]], detail: str | None = None) -> None:
        super().__init__(detail, extensions={"errors": list(errors)})


class InferenceFailedError(ServiceError):
    """The engine failed on this text."""

    code = "inference_failed"
    title = "Inference failed"


class OverloadedError(ServiceError):
    """The service is full; try again after the time in Retry-After."""

    status = 503
    code = "overloaded"
    title = "Overloaded"


class ModelNotReadyError(ServiceError):
    """The model is still loading."""

    status = 503
    code = "model_not_ready"
    title = "Model not ready"


class ModelUnavailableError(ServiceError):
    """The model could not be loaded; GET /models says why."""

    status = 503
    code = "model_unavailable"
    title = "Model unavailable"


class NotReadyError(ServiceError):
    """The service is not ready for traffic."""

    status = 503
    code = "not_ready"
    title = "Not ready"


class UnhealthyError(ServiceError):
    """A part of the process is dead or stuck."""

    status = 503
    code = "unhealthy"
    title = "Unhealthy"


class DeadlineExceededError(ServiceError):
    """The deadline passed before the answer was there."""

    status = 504
    code = "deadline_exceeded"
    title = "Deadline exceeded"


class TextEmptyError(ServiceError):
    """The text is empty."""

    status = 422
    code = "text_empty"
    title = "Empty text"


class TextTooLongError(ServiceError):
    """The text is longer than the service accepts."""

    status = 422
    code = "text_too_long"
    title = "Text too long"


class StartupError(Exception):
    """The service can't start, or a model can't be loaded; the message is for the operator."""

    reason: ClassVar[str] = "startup_failed"


class SettingsError(StartupError):
    """A setting has a value that can't be used."""

    reason = "bad_setting"


class CatalogError(StartupError):
    """models.toml can't be read or contradicts itself."""

    reason = "bad_catalog"


class SourceError(StartupError):
    """The files of a model can't be had."""

    reason = "source_unavailable"


class UnsafeModelError(StartupError):
    """A file of a model must not be loaded: wrong digest, pickle, or code of its own."""

    reason = "unsafe_model"


class EngineError(StartupError):
    """The engine can't load or run this model."""

    reason = "engine_failed"


def all_service_errors() -> tuple[type[ServiceError], ...]:
    """Return every error class that a client can meet, for the documents and their tests."""
    return (ServiceError, *ServiceError.__subclasses__())
