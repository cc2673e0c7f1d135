"""The answer to an invalid request, as bytes: the framework never sees it."""

import logging
from http import HTTPStatus

from app.core.logs import request_id
from app.errors import ServiceError
from app.middleware.exceptions import error_response
from app.middleware.logging import new_id

log = logging.getLogger(__name__)


def refusal(error: ServiceError, *, target: bytes, is_head: bool) -> bytes:
    """Log the refusal, and return the whole answer; the connection ends with it.

    Args:
        error: what is wrong.
        target: as far as it was read.
        is_head: whether the method is HEAD, whose answers have no body.

    """
    current = new_id()
    token = request_id.set(current)
    try:
        response = error_response(error, path=target.partition(b"?")[0].decode("latin-1"))
        log.info("request_refused", extra={"code": error.code, "status": response.status_code})
    finally:
        request_id.reset(token)
    status = HTTPStatus(response.status_code)
    headers = [
        *response.raw_headers,
        (b"x-request-id", current.encode()),
        (b"connection", b"close"),
    ]
    lines = [f"HTTP/1.1 {status.value} {status.phrase}".encode()]
    lines += [name + b": " + value for name, value in headers]
    body = b"" if is_head else bytes(response.body)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
