"""Sends a stream of tokens as a response: nothing before the first token, the end typed always."""

import asyncio
import logging
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.batching.deadline import Deadline
from app.engines.base import Generation
from app.errors import InternalError, NotReadyError, ReaderTooSlowError, ServiceError
from app.services.streaming import ChatService, Conversation, Stream
from app.tasks.chat.dialects import Dialect

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
# A reader that takes nothing for so long has stopped; what it was owed is dropped.
SEND_TIMEOUT_S = 30.0
# For the last line when the process ends or the reader has stopped: it fits a buffer, or nowhere.
LAST_LINE_TIMEOUT_S = 1.0
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would keep lines until it has a page of them
    "Cache-Control": "no-cache, no-transform",  # proxies would compress, and so collect, lines
}


class StreamResponse(Response):
    """Runs a generation while it is sent, and stops it when the client leaves.

    Until there is a first token or an end, an error is raised as from any route and gets its own
    status; afterwards it is the last line.
    """

    def __init__(
        self,
        chat: ChatService,
        asked: Conversation,
        *,
        deadline: Deadline,
        dialect: Dialect,
        heartbeat_s: float = HEARTBEAT_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        super().__init__(media_type=dialect.media_type, headers=HEADERS)
        del self.headers["content-length"]  # which nobody knows yet
        self._chat = chat
        self._asked = asked
        self._deadline = deadline
        self._dialect = dialect
        self._heartbeat_s = heartbeat_s
        self._send_timeout_s = send_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the stream.

        Raises:
            ServiceError: before anything is sent.

        """
        async with self._chat.open(self._asked, deadline=self._deadline) as stream:
            first = await stream.drain()
            if isinstance(stream.end, ServiceError) and not first:
                raise stream.end
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            try:
                await self._write_all(stream, first, send)
                await self._send(send, b"", more=False)
            except TimeoutError:
                stream.finish(ReaderTooSlowError())
                await self._write_last(send, ReaderTooSlowError())
                # The server would wait for this reader to take what is left, for ever.
                scope.get("state", {}).get("abort", _nothing)()
            except asyncio.CancelledError:
                # The client has left, and nobody reads this; or the process ends, and it is read.
                last = NotReadyError("The service is shutting down.", retry_after_s=1)
                await self._write_last(send, last)
                raise
            except Exception:
                log.exception("stream_failed", extra={"model": stream.model})
                stream.finish(InternalError())
                await self._write_last(send, InternalError())

    async def _write_all(self, stream: Stream, first: list[str], send: Send) -> None:
        """Write tokens as they come, all that there are at once, and the end."""
        piece = self._dialect.begin(stream.model) + self._dialect.tokens(first)
        while not stream.is_over:
            if piece:
                await self._send(send, piece)
            came = await stream.drain(timeout_s=self._heartbeat_s)
            is_silent = not came and not stream.is_over
            piece = self._dialect.heartbeat() if is_silent else self._dialect.tokens(came)
        if isinstance(stream.end, Generation):
            piece += self._dialect.finish(stream.end)
        elif stream.end is not None:
            piece += self._dialect.fail(stream.end)
        await self._send(send, piece)

    async def _send(self, send: Send, piece: bytes, *, more: bool = True) -> None:
        """Send whole lines; waits while the reader is slow.

        Raises:
            TimeoutError: it takes nothing.

        """
        async with asyncio.timeout(self._send_timeout_s):
            await send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _write_last(self, send: Send, error: ServiceError) -> None:
        """Try to say why the stream ends here."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_LINE_TIMEOUT_S):
                await self._send(send, self._dialect.fail(error), more=False)


def _nothing() -> None:
    """Stand in for `abort` where the server isn't ours."""
