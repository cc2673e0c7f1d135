"""Asks another server for JSON: bounded in size, in attempts, and in time by who waits for it."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Final, TypeVar

import httpx2

from app.core.backoff import Backoff
from app.core.call_scope import CallScope, current_scope
from app.core.loop_thread import LeftError, LoopThread
from app.core.tracing import outgoing
from app.engines.chat_base import ChatOptions
from app.engines.remote_settings import CONNECT_TIMEOUT_S, OPENAI_URL
from app.engines.remote_statuses import error_of, may_pass
from app.errors import (
    DeadlineExceededError,
    ServiceError,
    UpstreamFailedError,
    UpstreamUnreachableError,
)

log = logging.getLogger(__name__)

ATTEMPTS: Final = 3
BACKOFF: Final = Backoff(first_s=0.2, max_s=1.0)
# An answer that comes byte by byte is never silent; where no request's deadline ends it, this does.
MAX_SILENCES: Final = 3
MAX_ERROR_BYTES: Final = 2**16
# What reading an answer raises that isn't what was asked for.
UNREADABLE: Final = (ValueError, LookupError, TypeError, OverflowError, RecursionError)
T = TypeVar("T")


class _AttemptError(Exception):
    """One attempt has failed."""

    def __init__(self, error: ServiceError, *, may_pass: bool = False) -> None:
        super().__init__(error.code)
        self.error = error
        self.may_pass = may_pass


class RemoteServer:
    """The connections to one server. They are used in threads, and end when nobody waits there.

    Args:
        chat: the server's address, key, and the silence after which it is given up.

    """

    def __init__(self, chat: ChatOptions) -> None:
        self._timeout_s = chat.timeout_s
        key = {} if chat.api_key is None else {"Authorization": f"Bearer {chat.api_key}"}
        self._calls = LoopThread("remote-calls")
        self._client = httpx2.AsyncClient(
            base_url=chat.base_url or OPENAI_URL,
            # What is compressed could be of any size when it isn't any more.
            headers={"Accept": "application/json", "Accept-Encoding": "identity", **key},
            follow_redirects=False,  # texts go where the catalogue says
        )

    def post(self, path: str, body: Any, *, max_bytes: int, read: Callable[[Any], T]) -> T:  # noqa: ANN401  # JSON
        """Ask, and again after a failure that may pass, while somebody waits for it; blocks.

        Args:
            path: below the server's address.
            body: that becomes JSON.
            max_bytes: of the answer.
            read: makes what is returned of the answer's JSON; raises ValueError, LookupError or
                TypeError where it is none that was asked for.

        Raises:
            ServiceError: the server can't be reached, refuses, or answers something else; or
                nobody waits any more.

        """
        given = current_scope() or CallScope(until_s=inf)
        content = json.dumps(body).encode()
        until_s = min(given.until_s, time.monotonic() + MAX_SILENCES * self._timeout_s)
        scope = replace(given, until_s=until_s)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask(path, content, max_bytes=max_bytes, scope=scope, read=read)
            except LeftError:
                raise DeadlineExceededError from None
            except _AttemptError as failure:
                pause_s = BACKOFF.pause_s(attempt)
                is_late = time.monotonic() + pause_s >= until_s
                if attempt == ATTEMPTS or is_late or not failure.may_pass:
                    cause = type(failure.__cause__).__name__ if failure.__cause__ else None
                    extra = {"path": path, "code": failure.error.code, "cause": cause}
                    log.warning("remote_call_failed", extra=extra)
                    raise failure.error from failure
            time.sleep(pause_s)
        raise AssertionError("the last attempt raises")

    def _ask(
        self,
        path: str,
        content: bytes,
        *,
        max_bytes: int,
        scope: CallScope,
        read: Callable[[Any], T],
    ) -> T:
        """Ask once; raises `_AttemptError`, or LeftError when nobody waits any more."""
        left_s = min(self._timeout_s, scope.remaining_s)
        if left_s <= 0:
            raise _AttemptError(UpstreamUnreachableError())
        request = self._client.build_request(
            "POST",
            path,
            content=content,
            headers={"Content-Type": "application/json", **outgoing()},
            timeout=httpx2.Timeout(left_s, connect=min(left_s, CONNECT_TIMEOUT_S)),
        )
        try:
            answer = self._calls.call(
                self._send(request, max_bytes, scope), is_left=lambda: scope.is_left
            )
        except httpx2.TimeoutException as failure:
            # The server may still be working on it.
            raise _AttemptError(UpstreamUnreachableError()) from failure
        except httpx2.TransportError as failure:
            raise _AttemptError(UpstreamUnreachableError(), may_pass=True) from failure
        except httpx2.HTTPError as failure:
            raise _AttemptError(UpstreamFailedError()) from failure
        if not answer.is_well:
            error = error_of(answer.status, answer.headers, answer.content)
            raise _AttemptError(error, may_pass=may_pass(answer.status, error))
        try:
            return read(json.loads(answer.content))
        except UNREADABLE as failure:
            raise _AttemptError(UpstreamFailedError()) from failure

    async def _send(self, request: httpx2.Request, max_bytes: int, scope: CallScope) -> "_Answer":
        """Return what the server answers to a request; raises as `_read`."""
        response = await self._client.send(request, stream=True)
        try:
            is_well = response.is_success
            most = max_bytes if is_well else MAX_ERROR_BYTES
            content = await _read(response, most, until_s=scope.until_s, is_cut=not is_well)
        finally:
            await response.aclose()
        return _Answer(
            status=response.status_code,
            headers=response.headers,
            content=content,
            is_well=is_well,
        )

    def close(self) -> None:
        """Close the connections; blocks, for some seconds at most."""
        self._calls.close(self._client.aclose)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What a server answered; of an error perhaps not all of it."""

    status: int
    headers: httpx2.Headers
    content: bytes
    is_well: bool


async def _read(response: httpx2.Response, most: int, *, until_s: float, is_cut: bool) -> bytes:
    """Return an answer's bytes; of one that may be cut no more than the most.

    Raises:
        _AttemptError: it is too large, or takes too long.
        httpx2.HTTPError: it breaks off.

    """
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_bytes():  # each as it comes, 64 KiB at most
        pieces.append(piece)
        size += len(piece)
        if size > most:
            if is_cut:
                break
            raise _AttemptError(UpstreamFailedError()) from ValueError("too large")
        if time.monotonic() >= until_s:
            raise _AttemptError(UpstreamUnreachableError()) from TimeoutError()
    return b"".join(pieces)[:most]
