"""What the failures of remote embedders mean to a caller, and which may pass by themselves."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

import openai

from app.engines.remote_answers import headers_of, is_context, retry_after_s
from app.errors import (
    OptionsRefusedError,
    ServiceError,
    TextTooLongError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
    UpstreamUnreachableError,
)

TOO_LONG = "The text is longer than the remote model takes."
REFUSED = "The remote engine refused the text."
MEANINGS: Mapping[int, type[ServiceError]] = {
    HTTPStatus.UNAUTHORIZED: UpstreamUnauthorizedError,
    HTTPStatus.FORBIDDEN: UpstreamUnauthorizedError,
    HTTPStatus.NOT_FOUND: UpstreamModelNotFoundError,
}


def explain(failure: Exception) -> ServiceError:
    """Return our error for a failure, without keys, hosts and the provider's message."""
    if isinstance(failure, openai.APIConnectionError):
        return UpstreamUnreachableError()
    if not isinstance(failure, openai.APIStatusError):
        return UpstreamFailedError()
    status = failure.status_code
    if status == HTTPStatus.TOO_MANY_REQUESTS or (
        status == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" in headers_of(failure)
    ):
        return UpstreamBusyError(retry_after_s=retry_after_s(failure, now=datetime.now(UTC)))
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        return TextTooLongError(TOO_LONG) if is_context(failure) else OptionsRefusedError(REFUSED)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TextTooLongError(TOO_LONG)
    return MEANINGS.get(status, UpstreamFailedError)()


def may_pass(failure: Exception) -> bool:
    """Say whether the same request may succeed in a moment.

    After a timeout the server may still be working on it; and one that is busy says when.
    """
    if isinstance(failure, openai.APIConnectionError):
        return not isinstance(failure, openai.APITimeoutError)
    is_server = isinstance(failure, openai.InternalServerError)
    return is_server and isinstance(explain(failure), UpstreamFailedError)
