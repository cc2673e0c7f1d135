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


class MalformedFormError(ServiceError):
    """The body is not a whole form (multipart/form-data)."""

    status = 400
    code = "malformed_form"
    title = "Malformed form"


class BadRequestError(ServiceError):
    """The request could not be understood."""

    status = 400
    code = "bad_request"
    title = "Bad request"


class UnauthorizedError(ServiceError):
    """A valid API key is needed, as Authorization: Bearer or X-API-Key."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"

    def __init__(self) -> None:
        super().__init__(headers={"WWW-Authenticate": 'Bearer realm="ml-api"'})


class KeyEndedError(UnauthorizedError):
    """The API key was revoked, or has expired; a valid one is needed."""


class ForbiddenError(ServiceError):
    """The key may not do this."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class KeyNotFoundError(ServiceError):
    """There is no key with this id."""

    status = 404
    code = "key_not_found"
    title = "Key not found"


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


class ModelVersionNotFoundError(ServiceError):
    """The model has no such version; GET /models lists those that it has."""

    status = 404
    code = "model_version_not_found"
    title = "Model version not found"


class DocumentNotFoundError(ServiceError):
    """There is no such document."""

    status = 404
    code = "document_not_found"
    title = "Document not found"


class JobNotFoundError(ServiceError):
    """There is no such job."""

    status = 404
    code = "job_not_found"
    title = "Job not found"


class PredictionNotFoundError(ServiceError):
    """There is no such prediction: it was never kept, was deleted, or belongs to another key."""

    status = 404
    code = "prediction_not_found"
    title = "Prediction not found"


class UploadedFileNotFoundError(ServiceError):
    """There is no such file: it was never uploaded, was deleted, or has expired."""

    status = 404
    code = "file_not_found"
    title = "File not found"


class BatchNotFoundError(ServiceError):
    """There is no such batch."""

    status = 404
    code = "batch_not_found"
    title = "Batch not found"


class ResponseNotFoundError(ServiceError):
    """There is no such response: it was never kept, was deleted, or is too old."""

    status = 404
    code = "response_not_found"
    title = "Response not found"


class PreviousResponseNotFoundError(ServiceError):
    """The response to go on from was never kept, was deleted, or is too old."""

    status = 400
    code = "previous_response_not_found"
    title = "Previous response not found"

    def __init__(self) -> None:
        super().__init__(extensions={"field": "previous_response_id"})


class ItemNotFoundError(ServiceError):
    """The item that is referred to was never kept, was deleted, or is too old."""

    status = 400
    code = "item_not_found"
    title = "Item not found"

    def __init__(self, field: str | None = None) -> None:
        super().__init__(extensions={"field": field} if field else None)


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


class HeadersTimeoutError(ServiceError):
    """The headers did not arrive in time."""

    status = 408
    code = "headers_timeout"
    title = "Request timeout"


class ContextLengthExceededError(ServiceError):
    """The prompt is longer than the model's context."""

    status = 422
    code = "context_length_exceeded"
    title = "Context length exceeded"

    def __init__(
        self, *, prompt_tokens: int | None = None, context_tokens: int | None = None
    ) -> None:
        # litellm, LangChain and others know the error by these words.
        detail = "This model's maximum context length is exceeded by the prompt."
        extensions = {}
        if prompt_tokens is not None and context_tokens is not None:
            detail = (
                f"This model's maximum context length is {context_tokens} tokens; the prompt has"
                f" {prompt_tokens}."
            )
            extensions = {"prompt_tokens": prompt_tokens, "context_tokens": context_tokens}
        super().__init__(detail, extensions=extensions)


class OptionsRefusedError(ServiceError):
    """The engine refused the options of the generation."""

    status = 422
    code = "options_refused"
    title = "Options refused"


class UnsupportedFieldError(ServiceError):
    """The request asks for what this service doesn't do."""

    status = 400
    code = "unsupported_field"
    title = "Unsupported field"

    def __init__(self, field: str | None = None, *, detail: str | None = None) -> None:
        if field and not detail:
            detail = f"{field!r} is not supported with this value."
        super().__init__(detail, extensions={"field": field} if field else None)


class ReaderTooSlowError(ServiceError):
    """The client read the stream more slowly than it was generated."""

    status = 408
    code = "reader_too_slow"
    title = "Reader too slow"


class UpstreamUnauthorizedError(ServiceError):
    """The remote engine refused the key that this service has for it."""

    status = 502
    code = "upstream_unauthorized"
    title = "Remote engine refused the key"


class UpstreamModelNotFoundError(ServiceError):
    """The remote engine has no such model."""

    status = 502
    code = "upstream_model_not_found"
    title = "Remote model not found"


class UpstreamBusyError(ServiceError):
    """The remote engine is at its limit; try again after the time in Retry-After."""

    status = 503
    code = "upstream_busy"
    title = "Remote engine busy"


class UpstreamFailedError(ServiceError):
    """The remote engine failed, or gave an answer that can't be read."""

    status = 502
    code = "upstream_failed"
    title = "Remote engine failed"


class UpstreamUnreachableError(ServiceError):
    """The connection to the remote engine failed or was cut."""

    status = 502
    code = "upstream_unreachable"
    title = "Remote engine unreachable"


class ModelNameConflictError(ServiceError):
    """The path and the body name different models."""

    status = 409
    code = "model_name_conflict"
    title = "Two models named"


class SwapInProgressError(ServiceError):
    """The model is being changed; wait until that has ended."""

    status = 409
    code = "swap_in_progress"
    title = "Swap in progress"


class SwapRefusedError(ServiceError):
    """The model can't be changed in this way now."""

    status = 409
    code = "swap_refused"
    title = "Swap refused"


class SwapLostError(ServiceError):
    """Another replica changed the model at the same time; what it decided holds."""

    status = 409
    code = "swap_lost"
    title = "Swap lost"


class CatalogRefusedError(ServiceError):
    """The catalogue can't be read, or needs a restart; nothing has changed."""

    status = 409
    code = "catalogue_refused"
    title = "Catalogue refused"


class IdempotencyConflictError(ServiceError):
    """The Idempotency-Key was used before, for another request."""

    status = 409
    code = "idempotency_conflict"
    title = "Idempotency conflict"


class JobStateError(ServiceError):
    """The job's status doesn't allow this."""

    status = 409
    code = "job_state"
    title = "Not in this status"


class BatchStateError(ServiceError):
    """The batch's status doesn't allow this."""

    status = 409
    code = "batch_state"
    title = "Not in this status"


class FileInUseError(ServiceError):
    """A batch that isn't finished reads this file; cancel it first."""

    status = 409
    code = "file_in_use"
    title = "File in use"


class FileQuotaError(ServiceError):
    """The caller's files have as many bytes as they may, or are too many; delete some."""

    status = 413
    code = "file_quota_exceeded"
    title = "Too many files"


class BodyTooLargeError(ServiceError):
    """The body is larger than the service accepts."""

    status = 413
    code = "body_too_large"
    title = "Content too large"


class TargetTooLongError(ServiceError):
    """The address of the request is longer than 8192 bytes."""

    status = 414
    code = "target_too_long"
    title = "URI too long"


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


class RateLimitExceededError(ServiceError):
    """The caller is over its limit; try again after the time in Retry-After."""

    status = 429
    code = "rate_limited"
    title = "Too many requests"


class TooManyJobsError(ServiceError):
    """The job's owner has as many unfinished jobs as it may; try again when some are finished."""

    status = 429
    code = "too_many_jobs"
    title = "Too many jobs"


class TooManyBatchesError(ServiceError):
    """The caller has as many unfinished batches as they may; try again when some are finished."""

    status = 429
    code = "too_many_batches"
    title = "Too many batches"


class HeadersTooLargeError(ServiceError):
    """The headers are larger than 65536 bytes, or more than 200."""

    status = 431
    code = "headers_too_large"
    title = "Request header fields too large"


class TransferEncodingError(ServiceError):
    """A body may be sent in chunks, and encoded in no other way."""

    status = 501
    code = "transfer_encoding_unsupported"
    title = "Not implemented"


class HttpVersionError(ServiceError):
    """Only HTTP/1.1 and HTTP/1.0 are spoken here."""

    status = 505
    code = "http_version_unsupported"
    title = "HTTP version not supported"


class InferenceFailedError(ServiceError):
    """The engine failed on this input."""

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


class ModelCrashedError(ServiceError):
    """The model's process ended before it answered, and is being started again."""

    status = 503
    code = "model_crashed"
    title = "Model crashed"


class ModelUnavailableError(ServiceError):
    """The model could not be loaded; GET /models says why."""

    status = 503
    code = "model_unavailable"
    title = "Model unavailable"


class ModelLoadFailedError(ServiceError):
    """The version could not be loaded; what served before goes on."""

    status = 503
    code = "model_load_failed"
    title = "Model could not be loaded"


# What an operator may do about a database that can't be used, by the reason of the error.
DATABASE_ADVICE = {
    "schema": "its tables are not up to date: run `app db upgrade`",
    # Of a connection that fails the driver doesn't say why in a way that programs can read.
    "unreachable": "no connection: see that its server runs, and that DATABASE_URL has the right"
    " host, port, user, password and name",
    "timeout": "it takes longer than DATABASE_TIMEOUT_MS: see what keeps it",
    "refused": "it refuses: see the rights of its user or file, and whether it is read-only",
    "disk_full": "its disk is full: make room",
    "damaged": "it is damaged: put back a backup, and start the service again",
    "newer": "its tables are of a newer program, which doesn't serve this one: start the newer one",
    "full": "too many calls wait for it: see what keeps it, and DATABASE_POOL_SIZE",
    "closed": "this process has closed it",
}


class DatabaseUnavailableError(ServiceError):
    """The database doesn't answer; try again after the time in Retry-After."""

    status = 503
    code = "database_unavailable"
    title = "Database unavailable"

    def __init__(self, reason: str = "unreachable") -> None:
        super().__init__(retry_after_s=2)
        self.reason = reason  # for the log and /ready; a client isn't told

    @property
    def advice(self) -> str:
        """The reason as a sentence for an operator, without any address."""
        return DATABASE_ADVICE[self.reason]


class JobsUnavailableError(ServiceError):
    """The service has no queue for jobs; set REDIS_URL."""

    status = 503
    code = "jobs_unavailable"
    title = "Jobs unavailable"


class ResponsesUnavailableError(ServiceError):
    """Responses that were kept can't be read now; try again after the time in Retry-After."""

    status = 503
    code = "responses_unavailable"
    title = "Responses unavailable"

    def __init__(self) -> None:
        super().__init__(retry_after_s=2)


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


class TextWithoutTokensError(ServiceError):
    """The model's tokenizer finds nothing in the text, so that there is nothing to run."""

    status = 422
    code = "text_without_tokens"
    title = "Text without tokens"


class TextTooLongError(ServiceError):
    """The text is longer than the service accepts."""

    status = 422
    code = "text_too_long"
    title = "Text too long"


class ImageUnreadableError(ServiceError):
    """The image is damaged, or in a format that is not taken."""

    status = 422
    code = "image_unreadable"
    title = "Unreadable image"


class ImageTooLargeError(ServiceError):
    """The image has more pixels than the service accepts."""

    status = 422
    code = "image_too_large"
    title = "Image too large"


class StartupError(Exception):
    """The service can't start, or a model can't be loaded; the message is for the operator."""

    reason: ClassVar[str] = "startup_failed"

    @property
    def line(self) -> str:
        """The message on one line: libraries break theirs."""
        return " ".join(str(self).split())


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


class SchemaError(StartupError):
    """The tables of the database can't be brought up to date."""

    reason = "schema_failed"


class SchemaTooNewError(SchemaError):
    """The tables of the database are of a newer program than this one can work with."""

    reason = "schema_too_new"


def all_service_errors() -> tuple[type[ServiceError], ...]:
    """Return every error class that a client can meet, for the documents and their tests."""
    return (ServiceError, *ServiceError.__subclasses__())
