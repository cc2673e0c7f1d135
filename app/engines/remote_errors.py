"""What the failures of remote chat models mean to a caller, and which may pass by themselves."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from langchain_core import exceptions as lc_exceptions

from app.engines.chat_base import ChatFailure
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
# How OpenAI, vLLM and llama.cpp say that a prompt is too long: in a code, or in a sentence.
# LangChain looks for the code where OpenAI's client doesn't show it any more.
CONTEXT_MARKS = ("context_length_exceeded", "maximum context length", "available context size")
UNPROCESSABLE = 422
UNAVAILABLE = 503
DEFAULT_RETRY_S = 1
MAX_RETRY_S = 3600


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
    is_silent = isinstance(failure, lc_exceptions.ModelTimeoutError | TimeoutError)
    is_server = isinstance(failure, lc_exceptions.ModelAPIError)
    is_cut = kind is UpstreamUnreachableError and not is_silent
    return ChatFailure(error=kind(), is_transient=is_server or is_cut)


def meaning(failure: Exception) -> type[ServiceError]:
    """Return our error for a failure."""
    if isinstance(failure, lc_exceptions.ModelInvalidRequestError) and _is_context(failure):
        return ContextLengthExceededError
    for kind, error_type in MEANINGS.items():
        if isinstance(failure, kind):
            return error_type
    status = getattr(failure, "status_code", None)
    if status == UNPROCESSABLE:
        return OptionsRefusedError
    if status == UNAVAILABLE and "retry-after" in _headers(failure):
        return UpstreamBusyError
    return UpstreamUnreachableError if _is_network(failure) else UpstreamFailedError


def retry_after_s(failure: Exception, *, now: datetime) -> int:
    """Return what the provider's Retry-After says, a number or a date, within reason."""
    header = _headers(failure).get("retry-after", "")
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header, now=now)
    if math.isnan(seconds):
        return DEFAULT_RETRY_S
    return math.ceil(min(max(DEFAULT_RETRY_S, seconds), MAX_RETRY_S))


def _seconds_until(date: str, *, now: datetime) -> float:
    """Return the seconds until an HTTP date; NaN for what isn't a date."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    # A date without a zone is in UTC; HTTP has no other.
    return (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()


def _headers(failure: Exception) -> Mapping[str, str]:
    headers: Mapping[str, str] = getattr(getattr(failure, "response", None), "headers", {})
    return headers


def _is_context(failure: Exception) -> bool:
    message = f"{getattr(failure, 'code', '')} {failure}".lower()
    return any(mark in message for mark in CONTEXT_MARKS)


def _is_network(failure: Exception) -> bool:
    """Tell a connection's failure from an answer that makes no sense."""
    if isinstance(failure, OSError):
        return True
    # Of the provider's HTTP library, where its client doesn't translate the error.
    return any(kind.__name__ == "TransportError" for kind in type(failure).__mro__)
