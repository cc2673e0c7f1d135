"""What the failures of remote chat models mean to a caller, and which may pass by themselves."""

from collections.abc import Mapping
from datetime import UTC, datetime

import openai
from langchain_core import exceptions as lc_exceptions

from app.engines.chat_base import ChatFailure
from app.engines.remote_answers import headers_of, is_context, retry_after_s
from app.errors import (
    ContextLengthExceededError,
    OptionsRefusedError,
    ServiceError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
    UpstreamUnreachableError,
)

# LangChain's errors and ours, the more specific first.
MEANINGS: Mapping[type[Exception], type[ServiceError]] = {
    lc_exceptions.ContextOverflowError: ContextLengthExceededError,
    lc_exceptions.ModelAuthenticationError: UpstreamUnauthorizedError,
    lc_exceptions.ModelPermissionDeniedError: UpstreamUnauthorizedError,
    lc_exceptions.ModelNotFoundError: UpstreamModelNotFoundError,
    lc_exceptions.ModelRateLimitError: UpstreamBusyError,
    lc_exceptions.ModelInvalidRequestError: OptionsRefusedError,
    lc_exceptions.ModelTimeoutError: UpstreamUnreachableError,
    lc_exceptions.ModelConnectionError: UpstreamUnreachableError,
}
UNAVAILABLE = 503
# Where LangChain doesn't say what a failure means: what /completions raises is OpenAI's own.
STATUSES: Mapping[int, type[ServiceError]] = {
    400: OptionsRefusedError,
    401: UpstreamUnauthorizedError,
    403: UpstreamUnauthorizedError,
    404: UpstreamModelNotFoundError,
    422: OptionsRefusedError,
    429: UpstreamBusyError,
}


def explain(failure: Exception) -> ChatFailure:
    """Translate an exception of a chat model, without keys, hosts and its message."""
    if isinstance(failure, ServiceError):
        # We raise it when the stream ends before the answer does.
        is_cut = isinstance(failure, UpstreamUnreachableError)
        return ChatFailure(error=failure, is_transient=is_cut)
    kind = meaning(failure)
    if kind is UpstreamBusyError:
        # The provider says when to try again: no retry before.
        now = datetime.now(UTC)
        return ChatFailure(error=UpstreamBusyError(retry_after_s=retry_after_s(failure, now=now)))
    # After a timeout the server may still be working on it.
    is_silent = isinstance(
        failure, lc_exceptions.ModelTimeoutError | TimeoutError | openai.APITimeoutError
    )
    is_server = isinstance(failure, lc_exceptions.ModelAPIError | openai.InternalServerError)
    is_cut = kind is UpstreamUnreachableError and not is_silent
    return ChatFailure(error=kind(), is_transient=is_server or is_cut)


def meaning(failure: Exception) -> type[ServiceError]:
    """Return our error for a failure."""
    refused = lc_exceptions.ModelInvalidRequestError | openai.BadRequestError
    if isinstance(failure, refused) and is_context(failure):
        return ContextLengthExceededError
    for kind, error_type in MEANINGS.items():
        if isinstance(failure, kind):
            return error_type
    status: int = getattr(failure, "status_code", 0)
    if status in STATUSES:
        return STATUSES[status]
    if status == UNAVAILABLE and "retry-after" in headers_of(failure):
        return UpstreamBusyError
    return UpstreamUnreachableError if _is_network(failure) else UpstreamFailedError


def _is_network(failure: Exception) -> bool:
    """Tell a connection's failure from an answer that makes no sense."""
    if isinstance(failure, OSError | openai.APIConnectionError):
        return True
    # Of the provider's HTTP library, where its client doesn't translate the error.
    return any(kind.__name__ == "TransportError" for kind in type(failure).__mro__)
