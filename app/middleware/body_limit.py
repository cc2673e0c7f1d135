"""Bounds a request body in bytes and in time, before anything parses it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import Message, Receive

from app.errors import BodyTimeoutError, BodyTooLargeError

# A client that is still sending doesn't read the answer, and closing a connection with unread data
# resets it before the client can. So a body that is too large, or that the handler doesn't read, is
# read and dropped, up to this many times the limit.
DISCARD_FACTOR = 16
CLOSE = {"Connection": "close"}
# Names in lower case, as ASGI has them.
Headers = Mapping[bytes, bytes]


class ClientLeftError(Exception):
    """The client left before its body was complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """How large a body may be, and how long it may take.

    Args:
        max_bytes: of a body.
        timeout_s: for the whole body.
        max_bytes_of: the limits of paths that have their own.

    """

    max_bytes: int
    timeout_s: float
    max_bytes_of: Mapping[str, int] = field(default_factory=dict)


class Body:
    """A request's body in one piece. It is read once: by the handler, or before the answer is sent.

    If a handler answers without reading it, it is read and dropped before the answer is sent: a
    refusal costs no memory.

    Args:
        receive: of the request.
        headers: of the request; a body that they announce may be refused by its length.
        path: of the request.
        limits: what it may take.

    Raises:
        BodyTooLargeError: by the length that it announces.

    """

    __slots__ = ("_is_withheld", "_max_bytes", "_receive", "_timeout_s", "is_read")

    def __init__(
        self, receive: Receive, headers: Headers, *, path: str, limits: BodyLimits
    ) -> None:
        self.is_read = False
        self._receive = receive
        # The client waits for "100 Continue", which the first read sends.
        self._is_withheld = b"expect" in headers
        self._max_bytes = limits.max_bytes_of.get(path, limits.max_bytes)
        self._timeout_s = limits.timeout_s
        self._refuse_announced(headers)

    async def receive(self) -> Message:
        """Return the whole body first, and then the messages after it.

        Raises:
            BodyTooLargeError: it is larger than the limit.
            BodyTimeoutError: it didn't come in time.
            ClientLeftError: the client left before it was complete.

        """
        if self.is_read:
            return await self._receive()
        self.is_read = True
        try:
            body, size, is_whole = await self._read(keep=self._max_bytes)
        except TimeoutError:
            raise BodyTimeoutError(headers=CLOSE) from None
        if size > self._max_bytes:
            raise self._too_large(headers=None if is_whole else CLOSE)
        return {"type": "http.request", "body": body, "more_body": False}

    async def discard(self) -> bool:
        """Read and drop an unread body; False when it is too large or too slow for that."""
        if self.is_read:
            return True
        self.is_read = True
        if self._is_withheld:
            return False
        try:
            return (await self._read(keep=0))[2]
        except ClientLeftError:
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
                    raise ClientLeftError
                chunk: bytes = message.get("body", b"")
                more = message.get("more_body", False)
                size += len(chunk)
                if size <= keep:
                    chunks.append(chunk)
        return b"".join(chunks), size, not more

    def _refuse_announced(self, headers: Headers) -> None:
        """Refuse a body by its length: one too large to be dropped, or one that isn't sent yet."""
        size = announced_bytes(headers)
        if size > self._max_bytes * (1 if self._is_withheld else DISCARD_FACTOR):
            raise self._too_large(headers=CLOSE)

    def _too_large(self, *, headers: dict[str, str] | None) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"The body is larger than {self._max_bytes} bytes.", headers=headers
        )


def has_body(headers: Headers) -> bool:
    """Tell from the headers whether a body follows: either of two says so."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def announced_bytes(headers: Headers) -> int:
    """Return the length that headers announce; 0 without one."""
    announced = headers.get(b"content-length", b"")
    return int(announced) if announced.isdigit() else 0
