"""Sends a response in pieces: when it starts, how long it waits for its client, how it ends."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.core.connection import Connection
from app.errors import InternalError, NotReadyError, ReaderTooSlowError, ServiceError

log = logging.getLogger(__name__)

# A client that takes nothing for so long is too slow; the rest of its answer is dropped.
SEND_TIMEOUT_S = 30.0
# For the last line when the process ends or the client is too slow: it fits the buffer, or is lost.
LAST_LINE_TIMEOUT_S = 1.0
NO_CONTENT = 204
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would keep lines until it has a page of them, or a file
    "Cache-Control": "no-cache, no-transform",  # proxies would compress, and so collect, lines
}


class StreamedResponse(Response):
    """Sends pieces as they come, and closes their source when the client leaves.

    An error before the first piece is raised as from any route, and has its own status; later it is
    written as the last line, as is the end of the process. Without any piece it is a 204.

    Args:
        source: opened while the answer is sent; yields whole lines, heartbeats included. The error
            that ends the answer, such as a client that is too slow, is raised in its block.
        fail: writes an error as last lines; None: the format can't, and the answer breaks off.
        media_type: of the answer.
        headers: of the answer, in addition to those of every stream.
        cut_event: logged when the answer ends without its last line; None: not logged.
        send_timeout_s: how long the client may take for a piece.

    """

    def __init__(
        self,
        source: AbstractAsyncContextManager[AsyncIterator[bytes]],
        *,
        fail: Callable[[ServiceError], bytes | None],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        cut_event: str | None = None,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        super().__init__(media_type=media_type, headers=HEADERS | dict(headers or {}))
        del self.headers["content-length"]  # it isn't known yet
        self._source = source
        self._fail = fail
        self._cut_event = cut_event
        self._send_timeout_s = send_timeout_s
        self._has_left = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it.

        Raises:
            ServiceError: before anything is sent.

        """
        sending = asyncio.current_task()
        assert sending is not None  # noqa: S101  # a coroutine runs in a task
        watcher = asyncio.create_task(self._watch(receive, sending))
        try:
            connection: Connection | None = scope.get("state", {}).get("connection")
            # Other servers than ours can't be told.
            await self._stream(send, abort=connection.abort if connection else lambda: None)
        except asyncio.CancelledError:
            if not self._has_left:
                raise
            sending.uncancel()
        finally:
            watcher.cancel()

    async def _watch(self, receive: Receive, sending: asyncio.Task[None]) -> None:
        """Cancel the sending when the client leaves, unless the middleware has done so."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not sending.cancelling():
            self._has_left = True
            sending.cancel()

    async def _stream(self, send: Send, *, abort: Callable[[], None]) -> None:
        has_begun = False
        try:
            async with self._source as pieces:
                first = await anext(pieces, None)
                if first is None:
                    self.status_code = NO_CONTENT
                start = {"status": self.status_code, "headers": self.raw_headers}
                await send({"type": "http.response.start", **start})
                has_begun = True
                await self._send_all(first or b"", pieces, send, abort=abort)
        except ServiceError:
            if not has_begun:
                raise

    async def _send_all(
        self, first: bytes, pieces: AsyncIterator[bytes], send: Send, *, abort: Callable[[], None]
    ) -> None:
        """Send all pieces and the end.

        Raises:
            ServiceError: the answer ended with it; it is its last line.

        """
        try:
            piece: bytes | None = first
            try:
                while piece is not None:
                    await self._send(send, piece)
                    piece = await _next(pieces)
            except ServiceError as error:
                last = self._last_line(error)
                if last is not None:  # else the server cuts the connection: it is incomplete
                    await self._send(send, last, more=False)
                raise
            await self._send(send, b"", more=False)
        except TimeoutError:
            await self._send_last(send, ReaderTooSlowError())
            # The server would wait for ever for this client to take the rest.
            abort()
            raise ReaderTooSlowError from None
        except asyncio.CancelledError:
            # The process ends; or the client has left, and this isn't sent.
            if not self._has_left:
                ending = NotReadyError("The service is shutting down.", retry_after_s=1)
                await self._send_last(send, ending)
            raise

    async def _send(self, send: Send, piece: bytes, *, more: bool = True) -> None:
        """Send whole lines; waits while the client is slow.

        Raises:
            TimeoutError: the client takes nothing.

        """
        if piece or not more:
            async with asyncio.timeout(self._send_timeout_s):
                await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _send_last(self, send: Send, error: ServiceError) -> None:
        """Try to send the error as the last line."""
        last = self._last_line(error)
        if last is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_LINE_TIMEOUT_S):
                    await self._send(send, last, more=False)

    def _last_line(self, error: ServiceError) -> bytes | None:
        last = self._fail(error)
        if self._cut_event and (last is None or isinstance(error, ReaderTooSlowError)):
            log.warning(self._cut_event, extra={"reason": error.code})
        return last


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    """Return the next piece; None after the last.

    Raises:
        ServiceError: the answer ends with it.

    """
    try:
        return await anext(pieces, None)
    except ServiceError:
        raise
    except Exception as failure:
        log.exception("stream_failed")
        raise InternalError from failure
