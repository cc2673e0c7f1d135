"""What remote servers say beside a status: when to try again, and that a text is too long."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# How OpenAI, vLLM and llama.cpp say that a prompt is too long: in a code, or in a sentence.
# LangChain looks for the code where OpenAI's client doesn't show it any more.
CONTEXT_MARKS = ("context_length_exceeded", "maximum context length", "available context size")
DEFAULT_RETRY_S = 1
MAX_RETRY_S = 3600


def retry_after_s(failure: Exception, *, now: datetime) -> int:
    """Return what the provider's Retry-After says."""
    return seconds_of(headers_of(failure).get("retry-after", ""), now=now)


def seconds_of(header: str, *, now: datetime) -> int:
    """Return the seconds of a Retry-After, which is a number or a date, within reason."""
    try:
        seconds = float(header)
    except ValueError:
        seconds = _seconds_until(header, now=now)
    if math.isnan(seconds):
        return DEFAULT_RETRY_S
    return math.ceil(min(max(DEFAULT_RETRY_S, seconds), MAX_RETRY_S))


def headers_of(failure: Exception) -> Mapping[str, str]:
    """Return the headers of the answer that a failure is about, if there was one."""
    headers: Mapping[str, str] = getattr(getattr(failure, "response", None), "headers", {})
    return headers


def is_context(failure: Exception) -> bool:
    """Say whether a refusal is about the length of the text."""
    return speaks_of_context(f"{getattr(failure, 'code', '')} {failure}")


def speaks_of_context(message: str) -> bool:
    """Say whether a provider's words are about the length of the text."""
    words = message.lower()
    return any(mark in words for mark in CONTEXT_MARKS)


def _seconds_until(date: str, *, now: datetime) -> float:
    """Return the seconds until an HTTP date; NaN for what isn't a date."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    # A date without a zone is in UTC; HTTP has no other.
    return (then.replace(tzinfo=then.tzinfo or UTC) - now).total_seconds()
