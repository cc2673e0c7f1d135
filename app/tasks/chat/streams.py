"""Sends a stream of tokens as a response, whose end is always an explicit line."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from app.batching.deadline import Deadline
from app.engines.chat_base import Generation
from app.errors import ServiceError
from app.http.streamed import SEND_TIMEOUT_S, StreamedResponse
from app.services.streaming import ChatService, Conversation
from app.services.token_stream import Stream
from app.tasks.chat.dialects import Dialect

HEARTBEAT_S = 10.0
Finish = Callable[[Generation], bytes]


class StreamResponse(StreamedResponse):
    """Runs a generation while it is sent, and stops it when the client leaves."""

    def __init__(
        self,
        chat: ChatService,
        conversation: Conversation,
        *,
        deadline: Deadline,
        dialect: Dialect,
        heartbeat_s: float = HEARTBEAT_S,
        send_timeout_s: float = SEND_TIMEOUT_S,
    ) -> None:
        @asynccontextmanager
        async def source() -> AsyncIterator[AsyncGenerator[bytes]]:
            async with (
                chat.open(conversation, deadline=deadline) as stream,
                aclosing(stream_lines(stream, dialect, heartbeat_s=heartbeat_s)) as lines,
            ):
                try:
                    yield lines
                except ServiceError as error:
                    stream.finish(error)
                    raise

        super().__init__(
            source(),
            fail=dialect.fail,
            media_type=dialect.media_type,
            send_timeout_s=send_timeout_s,
        )


async def stream_lines(
    stream: Stream, dialect: Dialect, *, heartbeat_s: float, finish: Finish | None = None
) -> AsyncGenerator[bytes]:
    """Yield tokens as they come, all that are waiting at once, and the end.

    Args:
        stream: of tokens.
        dialect: writes them.
        heartbeat_s: after which a silence is broken.
        finish: writes the end; None: the dialect's own.

    Raises:
        ServiceError: the stream ends with it.

    """
    pieces = await stream.drain()
    if isinstance(stream.end, ServiceError) and not pieces:
        raise stream.end
    yield b""  # the answer begins; from here on an error is its last line
    lines = dialect.begin(stream.model, pieces) + dialect.pieces(pieces)
    while not stream.is_over:
        yield lines
        pieces = await stream.drain(timeout_s=heartbeat_s)
        is_silent = not pieces and not stream.is_over
        lines = dialect.heartbeat() if is_silent else dialect.pieces(pieces)
    if isinstance(stream.end, Generation):
        await dialect.keep(stream.end)
        lines += (finish or dialect.finish)(stream.end)
    yield lines
    if isinstance(stream.end, ServiceError):
        raise stream.end
