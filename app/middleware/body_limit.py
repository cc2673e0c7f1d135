"""Bounds a request body in bytes and in time, before anything parses it."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTimeoutError, BodyTooLargeError
from app.middleware.exceptions import answer_nobody

# A client that is still sending doesn't read the answer, and a connection closed on unread data
# is reset before it could. So a body that is too large is read to its end and thrown away, up to
# this many times the limit.
DISCARD_FACTOR = 16
CLOSE = {"Connection": "close"}


class _LeftError(Exception):
    """The client left before its body was whole."""


class BodyLimitMiddleware:
    """Hands the body on in one piece, read up to a limit when it is first asked for.

    A handler that refuses without a look at the body leaves it where it is: the server holds 64 KB
    of it, and throws away what comes after the answer.

    Args:
        app: what is served.
        max_bytes: the limit.
        timeout_s: in which the body must be there.
        max_bytes_of: the limits of paths that have their own.

    Raises, in the handler that asks for the body, and for the error boundary around it:
        BodyTooLargeError: announced or found to be larger than the limit.
        BodyTimeoutError: not there in time.

    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_bytes: int,
        timeout_s: float,
        max_bytes_of: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_of = max_bytes_of
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_bytes_of.get(scope["path"], self._max_bytes)
        _refuse_announced(Headers(scope=scope), max_bytes)
        try:
            await self._app(scope, self._in_one_piece(receive, max_bytes), send)
        except _LeftError:
            await answer_nobody(send)

    def _in_one_piece(self, receive: Receive, max_bytes: int) -> Receive:
        """Return a `receive` that gives the whole body first, and then whatever else comes."""
        is_read = False

        async def read() -> Message:
            nonlocal is_read
            if is_read:
                return await receive()
            is_read = True
            try:
                async with asyncio.timeout(self._timeout_s):
                    body = await _read(receive, max_bytes)
            except TimeoutError:
                raise BodyTimeoutError(headers=CLOSE) from None
            return {"type": "http.request", "body": body, "more_body": False}

        return read


def has_body(headers: Headers) -> bool:
    """Tell from the headers whether a body follows; HTTP says it in one of two ways."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _refuse_announced(headers: Headers, max_bytes: int) -> None:
    """Refuse by its length what is far too large to be read to its end, or hasn't begun."""
    announced = headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    is_waiting = "expect" in headers  # for our leave to send the body
    if size > max_bytes * (1 if is_waiting else DISCARD_FACTOR):
        raise _too_large(max_bytes, headers=CLOSE)


def _too_large(max_bytes: int, *, headers: dict[str, str] | None) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {max_bytes} bytes.", headers=headers)


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _LeftError
        chunk: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(chunk)
        if size <= max_bytes:
            chunks.append(chunk)
        elif size > max_bytes * DISCARD_FACTOR:
            break
    if size > max_bytes:
        raise _too_large(max_bytes, headers=CLOSE if more else None)
    return b"".join(chunks)
