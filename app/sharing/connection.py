"""One end of a connection between a front end and the engine's process: it puts frames together."""

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from app.sharing.frames import FrameReader, Kind

log = logging.getLogger(__name__)


class Connection(asyncio.Protocol):
    """Reads the frames of one connection; one that is none of ours ends it.

    Args:
        ended: gets whether there was any frame, when the connection has ended.
        opened: called with the transport.
        lost: called at the end.
        take: called with each frame; raises ValueError, LookupError or TypeError at what can't be.

    """

    def __init__(
        self,
        ended: "asyncio.Future[bool]",
        *,
        opened: Callable[[asyncio.Transport], None],
        lost: Callable[[], None],
        take: Callable[[Kind, bytearray], None],
    ) -> None:
        self._ended = ended
        self._opened = opened
        self._lost = lost
        self._take = take
        self._frames = FrameReader()
        self._has_heard = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._opened(self._transport)

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole."""
        try:
            for kind, payload in self._frames.feed(data):
                self._has_heard = True
                self._take(kind, payload)
        except (ValueError, LookupError, TypeError):
            log.exception("engine_link_broken")
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, _: Exception | None) -> None:
        """End."""
        self._lost()
        if not self._ended.done():
            self._ended.set_result(self._has_heard)
