"""Sends an answer in pieces: NDJSON or server-sent events, with an explicit end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager

from pydantic_core import from_json, to_json

from app.core.ending import is_shutdown
from app.errors import NotReadyError, ServiceError
from app.http.error_bodies import problem
from app.http.streamed import StreamedResponse
from app.services.pieces import PieceStream
from app.tasks.python.accounting import StreamAccount

HEARTBEAT_S = 10.0
ENDING = "The service is shutting down."


class PieceLines:
    """Writes pieces as NDJSON: each line has an `answer`, the last has `done`."""

    media_type = "application/x-ndjson"
    before, after = b"", b"\n"
    heartbeat = b'{"done":false}\n'  # some clients can't parse an empty line

    def __init__(self, *, path: str, request_id: str) -> None:
        self._path = path
        self._request_id = request_id

    def piece(self, content: bytes) -> bytes:
        """Return the line of a piece, in ASCII: some clients end lines at U+2028."""
        if not content.isascii():
            content = to_json(from_json(content), ensure_ascii=True)
        return b'%b{"answer":%b}%b' % (self.before, content, self.after)

    def end(self) -> bytes:
        """Return the last line of an answer that is whole."""
        return self.before + b'{"done":true}' + self.after

    def fail(self, error: ServiceError) -> bytes:
        """Return the last line of an answer that ended with an error."""
        content = {
            "done": True,
            "error": problem(error, path=self._path, request_id=self._request_id),
        }
        return self.before + to_json(content, ensure_ascii=True) + self.after


class PieceEvents(PieceLines):
    """The same objects as server-sent events."""

    media_type = "text/event-stream"
    before, after = b"data: ", b"\n\n"
    heartbeat = b": alive\n\n"  # a comment, which clients ignore


class PieceResponse(StreamedResponse):
    """Makes an answer while it is sent, and closes its generator when the client leaves.

    Args:
        stream: opened while it is sent.
        lines: how it is written.
        account: told how it ended.

    """

    def __init__(
        self,
        stream: AbstractAsyncContextManager[PieceStream],
        *,
        lines: PieceLines,
        account: StreamAccount,
    ) -> None:
        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncGenerator[bytes]]:
            opened: PieceStream | None = None
            try:
                async with stream as opened, aclosing(_lines(opened, lines)) as written:
                    yield written
            except ServiceError as error:
                account.ended(opened, error)
                raise
            except asyncio.CancelledError as cancelled:
                if is_shutdown(cancelled):
                    account.ended(opened, NotReadyError(ENDING), end="shutdown")
                else:
                    account.left(opened)
                raise
            account.ended(opened, None)

        super().__init__(source(), fail=lines.fail, media_type=lines.media_type)


async def _lines(stream: PieceStream, lines: PieceLines) -> AsyncGenerator[bytes]:
    """Yield lines as pieces come, and the end.

    An error before the first piece has its own status; so a heartbeat isn't the first line.
    """
    has_begun = False
    async for piece in stream.pieces:
        if piece is not None:
            has_begun = True
            yield lines.piece(piece)
        elif has_begun:
            yield lines.heartbeat
    yield lines.end()
