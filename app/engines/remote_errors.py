"""What the failures of remote chat models mean to a caller, and which may pass by themselves."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from langchain_core import exceptions as theirs

from app.engines.chat_base import Explained
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

# What LangChain calls a failure, and what we do, the more special first.
MEANINGS: Mapping[type[Exception], type[ServiceError]] = {
    theirs.ContextOverflowError: ContextLengthExceededError,
    theirs.ModelAuthenticationError: UpstreamUnauthorizedError,
    theirs.ModelPermissionDeniedError: UpstreamUnauthorizedError,
    theirs.ModelNotFoundError: UpstreamModelNotFoundError,
    theirs.ModelRateLimitError: UpstreamBusyError,
    theirs.ModelInvalidRequestError: OptionsRefusedError,
    theirs.ModelTimeoutError: UpstreamUnreachableError,
    theirs.ModelConnectionError: UpstreamUnreachableError,
}
# How OpenAI, vLLM and llama.cpp say that a prompt is too long: in a code, or in a sentence.
# LangChain looks for the code where OpenAI's client doesn't show it any more.
CONTEXT_MARKS = ("context_length_exceeded", "maximum context length", "available context size")
UNPROCESSABLE = 422
UNAVAILABLE = 503
DEFAULT_RETRY_S = 1
MAX_RETRY_S = 3600


def explain(failure: Exception) -> Explained:
    """Say what an exception of a chat model means; nothing of keys, hosts or its own words."""
    if isinstance(failure, ServiceError):
        # Ours says that the stream ended before the answer did.
        is_cut = isinstance(failure, UpstreamUnreachableError)
        return Explained(error=failure, is_transient=is_cut)
    kind = meaning(failure)
    if kind is UpstreamBusyError:
        # The provider has said when; asking again before is what it asked us not to do.
        now = datetime.now(UTC)
        return Explained(error=UpstreamBusyError(retry_after_s=retry_after_s(failure, now=now)))
    # Who was silent until the time was up may well still be working on it.
    is_silent = isinstance(failure, theirs.ModelTimeoutError | TimeoutError)
    is_server = isinstance(failure, theirs.ModelAPIError)
    is_cut = kind is UpstreamUnreachableError and not is_silent
    return Explained(error=kind(), is_transient=is_server or is_cut)


def meaning(failure: Exception) -> type[ServiceError]:
    """Return what we call a failure."""
    if isinstance(failure, theirs.ModelInvalidRequestError) and _is_context(failure):
        return ContextLengthExceededError
    for kind, ours in MEANINGS.items():
        if isinstance(failure, kind):
            return ours
    status = getattr(failure, "status_code", None)
    if status == UNPROCESSABLE:
        return OptionsRefusedError
    if status == UNAVAILABLE and "retry-after" in _headers(failure):
        return UpstreamBusyError
    return UpstreamUnreachableError if _is_network(failure) else UpstreamFailedError


def retry_after_s(failure: Exception, *, now: datetime) -> int:
    """Return what the provider's Retry-After says, a number or a date, within reason."""
    said = _headers(failure).get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        seconds = _seconds_until(said, now=now)
    if math.isnan(seconds):
        return DEFAULT_RETRY_S
    return math.ceil(min(max(DEFAULT_RETRY_S, seconds), MAX_RETRY_S))


def _seconds_until(date: str, *, now: datetime) -> float:
    """Return how far a date of HTTP lies ahead; not a number for what is no date."""
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
    said = f"{getattr(failure, 'code', '')} {failure}".lower()
    return any(mark in said for mark in CONTEXT_MARKS)


def _is_network(failure: Exception) -> bool:
    """Tell a connection's failure from an answer that makes no sense."""
    if isinstance(failure, OSError):
        return True
    # Of whichever HTTP library the provider's client uses, where that doesn't translate it.
    return any(kind.__name__ == "TransportError" for kind in type(failure).__mro__)
