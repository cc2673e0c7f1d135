"""What the statuses of other servers mean to a caller, where texts are embedded or ranked."""

from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus

from app.engines.remote_answers import seconds_of, speaks_of_context
from app.errors import (
    OptionsRefusedError,
    ServiceError,
    TextTooLongError,
    UpstreamBusyError,
    UpstreamFailedError,
    UpstreamModelNotFoundError,
    UpstreamUnauthorizedError,
)

TOO_LONG = "The text is longer than the remote model takes."
REFUSED = "The remote engine refused the text."
MEANINGS: Mapping[int, type[ServiceError]] = {
    HTTPStatus.UNAUTHORIZED: UpstreamUnauthorizedError,
    HTTPStatus.FORBIDDEN: UpstreamUnauthorizedError,
    HTTPStatus.NOT_FOUND: UpstreamModelNotFoundError,
}


def error_of(status: int, headers: Mapping[str, str], content: bytes) -> ServiceError:
    """Return our error for an answer that is none, without the provider's words.

    Args:
        status: of the answer, not one of success.
        headers: their names in any case.
        content: what the provider says, as far as it was read.

    """
    if status == HTTPStatus.TOO_MANY_REQUESTS or (
        status == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" in headers
    ):
        wait_s = seconds_of(headers.get("retry-after", ""), now=datetime.now(UTC))
        return UpstreamBusyError(retry_after_s=wait_s)
    if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
        is_length = speaks_of_context(content.decode("utf-8", "replace"))
        return TextTooLongError(TOO_LONG) if is_length else OptionsRefusedError(REFUSED)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TextTooLongError(TOO_LONG)
    return MEANINGS.get(status, UpstreamFailedError)()


def may_pass(status: int, error: ServiceError) -> bool:
    """Say whether the same request may succeed in a moment; one that is busy says when."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR and isinstance(error, UpstreamFailedError)
