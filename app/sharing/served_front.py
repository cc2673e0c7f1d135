"""A front end, as the engine's process serves it."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from app.batching.deadline import Deadline
from app.batching.requests import Outcome, QueuedRequest
from app.batching.scheduler import BatchScheduler
from app.core.tracing import PACKED_BYTES
from app.errors import InferenceFailedError, ModelNotReadyError, ServiceError
from app.sharing.connection import Connection
from app.sharing.failures import write_failure
from app.sharing.frames import (
    CANCEL,
    NUMBER,
    REQUEST,
    Kind,
    LinkError,
    TooLargeError,
    frame,
    pack_json,
)
from app.sharing.items import unpack_items
from app.sharing.rows import pack_rows

if TYPE_CHECKING:
    from app.core.spans import Trace
    from app.core.telemetry import Telemetry

log = logging.getLogger(__name__)

# That a front end may leave unread; it reads as fast as rows come, unless it is stuck.
MAX_UNREAD_BYTES: Final = 256 * 2**20
Find = Callable[[int], BatchScheduler[Any] | None]


class ServedFront:
    """Queues the requests of one front end, and answers them. Used on the event loop only.

    Args:
        find: returns what runs a model, by its index; None while it doesn't serve.
        on_open: called with this when it has connected.
        on_end: called with this when it has left.
        telemetry: continues its traces; None: tracing is off.
        max_unread_bytes: that may wait to be read; with more, the connection is ended.

    """

    def __init__(
        self,
        find: Find,
        *,
        on_open: "Callable[[ServedFront], None]",
        on_end: "Callable[[ServedFront], None]",
        telemetry: "Telemetry | None" = None,
        max_unread_bytes: int = MAX_UNREAD_BYTES,
    ) -> None:
        self._find = find
        self._on_open = on_open
        self._on_end = on_end
        self._telemetry = telemetry
        self._max_unread_bytes = max_unread_bytes
        self.loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._replies: dict[int, Reply] = {}
        self._parts: list[bytes] = []

    def protocol(self) -> asyncio.Protocol:
        """Return what reads its frames."""
        ended: asyncio.Future[bool] = self.loop.create_future()
        return Connection(ended, opened=self._opened, lost=self._lost, take=self._take)

    def tell(self, data: bytes) -> None:
        """Send frames, with all others of this turn of the event loop."""
        if not self._parts:
            self.loop.call_soon(self._flush)
        self._parts.append(data)

    def abort(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.abort()

    def answer(self, reply: "Reply", data: bytes) -> None:
        """Send the answer to a request."""
        if self._replies.pop(reply.number, None) is not None:
            self.tell(data)

    def _opened(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._on_open(self)

    def _lost(self) -> None:
        """Have all of its requests leave the queue: their front end has ended."""
        self._transport = None
        replies, self._replies = self._replies, {}
        for reply in replies.values():
            reply.leave(is_client_gone=True)
        if replies:
            log.warning("front_end_left", extra={"requests": len(replies)})
        self._on_end(self)

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size() > self._max_unread_bytes:
            log.error("front_end_stuck", extra={"unread_bytes": self._max_unread_bytes})
            self._transport.abort()
            return
        self._transport.write(data)

    def _take(self, kind: Kind, payload: bytearray) -> None:
        if kind is Kind.REQUEST and len(payload) >= REQUEST.size:
            self._queue(payload)
        elif kind is Kind.TRACED and len(payload) >= PACKED_BYTES + REQUEST.size:
            telemetry = self._telemetry
            trace = None if telemetry is None else telemetry.unpack(payload[:PACKED_BYTES])
            self._queue(payload[PACKED_BYTES:], trace)
        elif kind is Kind.CANCEL and len(payload) == CANCEL.size:
            number, is_client_gone = CANCEL.unpack(payload)
            if reply := self._replies.pop(number, None):
                reply.leave(is_client_gone=is_client_gone)
        else:
            raise LinkError(f"a frame of the kind {kind.name} of {len(payload)} bytes")

    def _queue(self, payload: bytearray, trace: "Trace | None" = None) -> None:
        number, index, count, at_s = REQUEST.unpack_from(payload)
        items = unpack_items(payload[REQUEST.size :], count)
        scheduler = self._find(index)
        try:
            if scheduler is None:
                raise ModelNotReadyError(retry_after_s=1)
            reply = Reply(self, number, scheduler)
            self._replies[number] = reply
            reply.request = scheduler.submit_prepared(
                items, deadline=Deadline(at_s=at_s), waiter=reply, trace=trace
            )
        except ServiceError as failure:
            self._replies.pop(number, None)
            self.tell(refusal(number, failure))


class Reply:
    """Waits for the outcome of a request, and sends it; a `Waiter` of the queue."""

    __slots__ = ("_front", "_is_done", "_scheduler", "number", "request")

    def __init__(self, front: ServedFront, number: int, scheduler: BatchScheduler[Any]) -> None:
        self.number = number
        self.request: QueuedRequest | None = None
        self._front = front
        self._scheduler = scheduler
        self._is_done = False

    def done(self) -> bool:
        """Say whether nobody waits any more."""
        return self._is_done

    def set_result(self, outcome: Outcome, /) -> None:
        """Send the rows."""
        self._is_done = True
        if self.request is not None:
            self._scheduler.note_answered(self.request)
        try:
            data = frame(Kind.ROWS, NUMBER.pack(self.number), pack_rows(outcome.rows))
        except TooLargeError as failure:
            log.error("rows_too_large", extra={"size": str(failure)})  # noqa: TRY400  # it has no more to say
            data = refusal(self.number, InferenceFailedError())
        self._front.answer(self, data)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of the connection."""
        return self._front.loop

    def leave(self, *, is_client_gone: bool) -> None:
        """Drop the request: nobody waits for it."""
        self._is_done = True
        if self.request is not None:
            self._scheduler.leave(self.request, is_client_gone=is_client_gone)


def refusal(number: int, failure: ServiceError) -> bytes:
    """Return the frame that answers a request with an error."""
    return frame(Kind.REFUSED, NUMBER.pack(number), pack_json(write_failure(failure)))
