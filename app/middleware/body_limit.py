"""Bounds a request body in bytes and in time, before anything parses it."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import BodyTimeoutError, BodyTooLargeError
from app.middleware.exceptions import answer_client_left

# A client that is still sending doesn't read the answer, and closing a connection with unread data
# resets it before the client can. So a body that is too large, or that the handler doesn't read, is
# read and dropped, up to this many times the limit.
DISCARD_FACTOR = 16
CLOSE = {"Connection": "close"}
CLOSE_LINE = (b"connection", b"close")


class _LeftError(Exception):
    """The client left before its body was complete."""


class BodyLimitMiddleware:
    """Passes the body on in one piece; it is read, up to a limit, at the handler's first `receive`.

    If a handler answers without reading the body, the body is read and dropped before the answer is
    sent: a refusal costs no memory.

    Args:
        app: the next one.
        max_bytes: the limit.
        timeout_s: for the whole body.
        max_bytes_of: the limits of paths that have their own.

    Raises, in the handler that reads the body, and for the error boundary around it:
        BodyTooLargeError: it is larger than the limit, by its length header or when it is read.
        BodyTimeoutError: it didn't come in time.

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
        if scope["type"] != "http" or not has_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        max_bytes = self._max_bytes_of.get(scope["path"], self._max_bytes)
        _refuse_announced(headers, max_bytes)
        body = _Body(receive, headers, max_bytes=max_bytes, timeout_s=self._timeout_s)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not await body.discard():
                message = {**message, "headers": [*message["headers"], CLOSE_LINE]}
            await send(message)

        try:
            await self._app(scope, body.receive, answer)
        except _LeftError:
            await answer_client_left(send)
        except Exception:
            await body.discard()
            raise


class _Body:
    """A request's body, which is read once: by the handler, or before the answer is sent."""

    def __init__(
        self, receive: Receive, headers: Headers, *, max_bytes: int, timeout_s: float
    ) -> None:
        self._receive = receive
        self._is_withheld = _is_withheld(headers)
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._is_read = False

    async def receive(self) -> Message:
        """Return the whole body first, and then the messages after it."""
        if self._is_read:
            return await self._receive()
        self._is_read = True
        try:
            body, size, is_whole = await self._read(keep=self._max_bytes)
        except TimeoutError:
            raise BodyTimeoutError(headers=CLOSE) from None
        if size > self._max_bytes:
            raise _too_large(self._max_bytes, headers=None if is_whole else CLOSE)
        return {"type": "http.request", "body": body, "more_body": False}

    async def discard(self) -> bool:
        """Read and drop an unread body; False when it is too large or too slow for that."""
        if self._is_read:
            return True
        self._is_read = True
        if self._is_withheld:
            return False
        try:
            return (await self._read(keep=0))[2]
        except _LeftError:
            return True
        except TimeoutError:
            return False

    async def _read(self, *, keep: int) -> tuple[bytes, int, bool]:
        """Return up to `keep` bytes, how many came, and whether that was the whole body."""
        chunks: list[bytes] = []
        size, more = 0, True
        async with asyncio.timeout(self._timeout_s):
            while more and size <= self._max_bytes * DISCARD_FACTOR:
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise _LeftError
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size <= keep:
                    chunks.append(chunk)
        return b"".join(chunks), size, not more


def has_body(headers: Headers) -> bool:
    """Tell from the headers whether a body follows: either of two says so."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _is_withheld(headers: Headers) -> bool:
    """Tell whether the client waits for "100 Continue", which the first read sends."""
    return "expect" in headers


def _refuse_announced(headers: Headers, max_bytes: int) -> None:
    """Refuse a body by its length: one too large to be dropped, or one that isn't sent yet."""
    announced = headers.get("content-length", "")
    size = int(announced) if announced.isdecimal() else 0
    if size > max_bytes * (1 if _is_withheld(headers) else DISCARD_FACTOR):
        raise _too_large(max_bytes, headers=CLOSE)


def _too_large(max_bytes: int, *, headers: dict[str, str] | None) -> BodyTooLargeError:
    return BodyTooLargeError(f"The body is larger than {max_bytes} bytes.", headers=headers)
