"""Bounds a request body in bytes and in time, before anything parses it.

How much all bodies may have together is `body_budget.py`'s.
"""

import asyncio
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace

from starlette.types import Message, Receive, Scope

from app.core.callers import Caller
from app.errors import BodyTimeoutError, BodyTooLargeError, OverloadedError
from app.middleware.body_budget import BodyBudget, Hold

# A client that is still sending doesn't read the answer, and closing a connection with unread data
# resets it before the client can. So a body that is too large, or that the handler doesn't read, is
# read and dropped, up to this many times the limit.
DISCARD_FACTOR = 16
# Places become free whenever an upload ends.
RETRY_AFTER_S = 1
OVERLOADED = "The bodies of other requests take all the memory that there is for them."
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
        budget: of all bodies together.
        max_bytes_of: the limits of paths that have their own.
        streamed: those of POST requests to paths whose routes read a body as it comes.

    """

    max_bytes: int
    timeout_s: float
    budget: BodyBudget
    max_bytes_of: Mapping[str, int] = field(default_factory=dict)
    streamed: Mapping[str, int] = field(default_factory=dict)

    def is_streamed(self, scope: Scope) -> bool:
        """Say whether the route of a request reads its body as it comes."""
        return scope["path"] in self.streamed


class Body:
    """A request's body in one piece. It is read once: by the handler, or before the answer is sent.

    If a handler answers without reading it, it is read and dropped before the answer is sent: a
    refusal costs no memory.

    Args:
        scope: of the request; in its state, the guard of the route leaves the caller.
        receive: of the request.
        headers: of the request; a body that they announce may be refused by its length.
        limits: what it may take.

    Raises:
        BodyTooLargeError: by the length that it announces.

    """

    def __init__(
        self, scope: Scope, receive: Receive, headers: Headers, *, limits: BodyLimits
    ) -> None:
        self.is_read = False
        self._scope = scope
        self._receive = receive
        # The client waits for "100 Continue", which the first read sends.
        self._is_withheld = b"expect" in headers
        self._announced = announced_bytes(headers)
        self._max_bytes = limits.max_bytes_of.get(scope["path"], limits.max_bytes)
        self._timeout_s = limits.timeout_s
        self._budget = limits.budget
        self._hold: Hold | None = None  # of a body that is kept
        self._is_refused = False
        # One too large to be dropped, or one that isn't sent yet.
        if self._announced > self._max_bytes * (1 if self._is_withheld else DISCARD_FACTOR):
            raise self._too_large(headers=CLOSE)

    async def receive(self) -> Message:
        """Return the whole body first, and then the messages after it.

        Raises:
            BodyTooLargeError: it is larger than the limit.
            BodyTimeoutError: it didn't come in time.
            OverloadedError: all bodies, or those of its caller, have too many bytes already.
            ClientLeftError: the client left before it was complete.

        """
        if self.is_read:
            return await self._receive()
        # The route's guard has run before, so the caller is known.
        self._hold = self._budget.hold(caller_of(self._scope))
        if not self._hold.may_grow(min(self._announced, self._max_bytes)):
            raise _overloaded(headers=None)  # `discard` reads the body before the answer
        self.is_read = True
        try:
            body, size, is_whole = await self._read(keep=self._max_bytes)
        except TimeoutError:
            if self._is_refused:
                raise _overloaded(headers=CLOSE) from None
            raise BodyTimeoutError(headers=CLOSE) from None
        close = None if is_whole else CLOSE
        if size > self._max_bytes:
            raise self._too_large(headers=close)
        if self._is_refused:
            raise _overloaded(headers=close)
        return {"type": "http.request", "body": body, "more_body": False}

    def release(self) -> None:
        """Count its bytes as gone: it is dropped, or the request is over."""
        if self._hold is not None:
            self._hold.release()

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
                if size <= keep and self._may_keep(len(chunk)):
                    chunks.append(chunk)
                else:
                    chunks.clear()
                    self.release()
        return b"".join(chunks), size, not more

    def _may_keep(self, size: int) -> bool:
        """Count a part of the body; from the first that doesn't fit on, all is dropped."""
        if self._hold is not None and not self._is_refused:
            self._is_refused = not self._hold.grow(size)
        return not self._is_refused

    def _too_large(self, *, headers: dict[str, str] | None) -> BodyTooLargeError:
        return BodyTooLargeError(
            f"The body is larger than {self._max_bytes} bytes.", headers=headers
        )


class StreamedBody(Body):
    """A body that its route takes as it comes, piece by piece, and so in little memory.

    The route bounds how long it takes altogether; a single piece may take as long as a whole body.
    """

    def __init__(
        self, scope: Scope, receive: Receive, headers: Headers, *, limits: BodyLimits
    ) -> None:
        self._largest = limits.streamed[scope["path"]]
        own = replace(limits, max_bytes_of={scope["path"]: self._largest})
        super().__init__(scope, receive, headers, limits=own)
        self._size = 0
        # What is dropped before a refusal: a client that has a file to send is cut off before.
        self._max_bytes = limits.max_bytes

    async def receive(self) -> Message:
        """Return the next piece.

        Raises:
            BodyTooLargeError: it is larger than the limit.
            BodyTimeoutError: the client has stopped sending.
            ClientLeftError: the client left before it was complete.

        """
        if self._announced > self._largest:
            raise self._refusal()
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await self._receive()
        except TimeoutError:
            self.is_read = True
            raise BodyTimeoutError(headers=CLOSE) from None
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        self._is_withheld = False
        self._size += len(message.get("body", b""))
        if not message.get("more_body", False):
            self.is_read = True
        if self._size > self._largest:
            raise self._refusal()
        return message

    def _refusal(self) -> BodyTooLargeError:
        return BodyTooLargeError(f"The body is larger than {self._largest} bytes.")


def caller_of(scope: Scope) -> Hashable:
    """Return whose share a body's bytes are of: the key's, else the address's that connects."""
    caller: Caller | None = scope.get("state", {}).get("caller")
    if caller is not None and caller.name is not None:
        return caller.key_id, caller.name  # the key of ADMIN_KEY has a name only
    peer: tuple[str, int] | None = scope.get("client")
    return peer[0] if peer else None


def has_body(headers: Headers) -> bool:
    """Tell from the headers whether a body follows: either of two says so."""
    return headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers


def announced_bytes(headers: Headers) -> int:
    """Return the length that headers announce; 0 without one."""
    announced = headers.get(b"content-length", b"")
    return int(announced) if announced.isdigit() else 0


def _overloaded(*, headers: dict[str, str] | None) -> OverloadedError:
    return OverloadedError(OVERLOADED, retry_after_s=RETRY_AFTER_S, headers=headers)
