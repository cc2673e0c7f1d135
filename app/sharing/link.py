"""A front end's connection to the engine's process: kept, and made anew when it is lost."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, cast

from app.core.background import run_in_background
from app.core.backoff import Backoff
from app.core.metrics import Metrics
from app.engines.base import Step
from app.errors import BodyTooLargeError, OverloadedError, ServiceError
from app.models.entries import ModelState
from app.models.steps import LoadSteps
from app.sharing.connection import Connection
from app.sharing.facts import Facts
from app.sharing.failures import read_failure, read_refusal
from app.sharing.frames import (
    CANCEL,
    NUMBER,
    REQUEST,
    Kind,
    LinkError,
    TooLargeError,
    frame,
    unpack_json,
)
from app.sharing.requests import SharedRequest
from app.sharing.rows import unpack_rows
from app.sharing.shared_model import ENDED, NotSharedError, SharedModel

log = logging.getLogger(__name__)

# What the engine's process may leave unread; it reads as fast as texts come, unless it is stuck.
MAX_UNSENT_BYTES: Final = 4 * 2**20
RECONNECT: Final = Backoff(first_s=0.02, max_s=1.0)
TOO_MANY_TOKENS: Final = "The texts have more tokens together than one request may have."


class EngineLink:
    """Asks the engine's process. Methods are called on the event loop, but for `send`.

    Args:
        address: of the process's Unix socket.
        names: of the models that it runs.
        steps: where it is noted how far each has come while it loads.
        metrics: where everything counts.
        max_unsent_bytes: that may wait to be read; with more, requests are refused.

    """

    def __init__(
        self,
        address: str,
        names: Iterable[str],
        *,
        steps: LoadSteps,
        metrics: Metrics,
        max_unsent_bytes: int = MAX_UNSENT_BYTES,
    ) -> None:
        self.models = {name: SharedModel(name) for name in names}
        self._address = address
        self._steps = steps
        self._metrics = metrics
        self._max_unsent_bytes = max_unsent_bytes
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._transport: asyncio.Transport | None = None
        self._pending: dict[int, SharedRequest] = {}
        self._prepared: deque[tuple[SharedRequest, bytes]] = deque()
        self._is_told = False
        self._last_number = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the connection during the block."""
        async with run_in_background(self._keep, name="engine_link"):
            try:
                yield
            finally:
                for model in self.models.values():
                    model.close()

    async def _keep(self) -> None:
        losses = 0
        try:
            while True:
                ended: asyncio.Future[bool] = self._loop.create_future()
                connect = partial(
                    Connection, ended, opened=self.opened, lost=self.lost, take=self.take
                )
                try:
                    await self._loop.create_unix_connection(connect, self._address)
                except OSError as failure:
                    log.debug("engine_unreachable", extra={"error": type(failure).__name__})
                    losses += 1
                else:
                    losses = 1 if await ended else losses + 1
                await asyncio.sleep(RECONNECT.pause_s(losses))
        finally:
            if self._transport is not None:
                self._transport.abort()

    def next_number(self) -> int:
        """Return the number of a new request."""
        self._last_number += 1
        return self._last_number

    def send(self, request: SharedRequest, payload: bytes) -> None:
        """Have a request sent with what else is ready by then; called in any thread."""
        self._prepared.append((request, payload))
        if not self._is_told:
            self._is_told = True
            self.call(self._flush)

    def call(self, what: Callable[..., object], *arguments: object) -> None:
        """Call on the event loop, from any thread."""
        if threading.get_ident() == self._thread:
            self._loop.call_soon(what, *arguments)
            return
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            log.debug("loop_closed")  # its requests are gone with it

    def leave(self, request: SharedRequest, *, is_client_gone: bool) -> None:
        """Have a request dropped, for which nobody waits any more."""
        request.is_left = True
        if self._pending.pop(request.number, None) is not None and self._transport is not None:
            self._transport.write(frame(Kind.CANCEL, CANCEL.pack(request.number, is_client_gone)))

    def _flush(self) -> None:
        self._is_told = False
        parts: list[bytes] = []
        size = self._transport.get_write_buffer_size() if self._transport is not None else 0
        while self._prepared:
            request, payload = self._prepared.popleft()
            if request.is_left:
                continue
            if self._transport is None or not request.model.is_up:
                request.fail(request.model.away())
                continue
            try:
                parts.append(_request(request, payload))
            except TooLargeError:
                request.fail(BodyTooLargeError(TOO_MANY_TOKENS))
                continue
            size += len(parts[-1])
            if size > self._max_unsent_bytes and size > len(parts[-1]):
                size -= len(parts.pop())
                self._metrics.refused.labels(request.model.name, "unsent").inc()
                request.fail(OverloadedError(retry_after_s=1))
                continue
            request.is_sent = True
            self._pending[request.number] = request
        if parts and self._transport is not None:
            self._transport.write(b"".join(parts))

    def opened(self, transport: asyncio.Transport) -> None:
        """Take a new connection; models are up when the process says so."""
        self._transport = transport

    def lost(self) -> None:
        """Answer what was asked: none of it is asked again, as it may be what ended the process."""
        self._transport = None
        if any(model.is_up for model in self.models.values()):
            self._metrics.engine_link_losses.inc()
            log.warning("engine_link_lost", extra={"requests": len(self._pending)})
        for model in self.models.values():
            model.go_down()
        pending, self._pending = self._pending, {}
        for request in pending.values():
            request.fail(request.model.away(ENDED))

    def take(self, kind: Kind, payload: bytearray) -> None:
        """Take what the process says.

        Raises:
            ValueError, LookupError, TypeError: it is nothing that it should say.

        """
        match kind:
            case Kind.ROWS:
                number = _number(payload)
                if request := self._pending.get(number):
                    request.finish(unpack_rows(payload[NUMBER.size :]))
                    del self._pending[number]
            case Kind.REFUSED:
                failure = read_failure(unpack_json(payload[NUMBER.size :])[0])
                if request := self._pending.pop(_number(payload), None):
                    request.fail(cast("ServiceError", failure))
            case Kind.MODEL:
                facts = Facts.unpack(payload)
                if model := self.models.get(facts.name):
                    model.take_facts(facts)
            case Kind.STATE:
                for name, state in unpack_json(payload)[0].items():
                    self._take_state(name, state)
            case _:
                raise LinkError(f"a frame of the kind {kind.name}")

    def _take_state(self, name: str, state: dict[str, Any]) -> None:
        if (model := self.models.get(name)) is None:
            return
        if step := state["step"]:
            self._steps.recorder(name)(Step(number=step[0], of=step[1], name=step[2]))
        if not state["is_shared"]:
            model.take_refusal(NotSharedError())
        elif state["state"] == ModelState.FAILED:
            model.take_refusal(read_refusal(state["reason"], state["detail"]))


def _request(request: SharedRequest, payload: bytes) -> bytes:
    head = REQUEST.pack(
        request.number, request.model.index, len(request.prepared), request.deadline.at_s
    )
    if request.trace is None:
        return frame(Kind.REQUEST, head, payload)
    return frame(Kind.TRACED, request.trace.pack(), head, payload)


def _number(payload: bytearray) -> int:
    if len(payload) < NUMBER.size:
        raise LinkError("the number of a request is missing")
    number: int = NUMBER.unpack_from(payload)[0]
    return number
