"""How the first process keeps another one running: it starts it, listens to it, starts it again."""

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from prometheus_client import Counter

from app.server.channel import Channel
from app.server.collecting import Collector
from app.server.front import Watched

log = logging.getLogger(__name__)

# For what a process said last to be read.
LAST_WORDS_S: Final = 1.0


class Keeper:
    """Keeps one process running.

    Args:
        watched: the process.
        collector: of the metrics of all.
        restarts: counts how often it was started again.
        on_start: called when it has been started.
        on_state: called when it has told its state, with whether that has changed.
        on_end: called with its exit status when it has ended, before what it said is forgotten.

    """

    def __init__(
        self,
        watched: Watched,
        *,
        collector: Collector,
        restarts: Counter,
        on_start: Callable[[], None],
        on_state: Callable[[bool], None],
        on_end: Callable[[int], None],
    ) -> None:
        self._watched = watched
        self._collector = collector
        self._restarts = restarts
        self._on_start = on_start
        self._on_state = on_state
        self._on_end = on_end

    async def keep(self, until: asyncio.Event) -> str | None:
        """Start it, and again whenever it ends, until an event.

        Returns: why it ended before it had opened, which ends the keeping; else None.

        """
        watched = self._watched
        while not until.is_set():
            try:
                status = await self._run()
            finally:
                await watched.child.stop()  # which has ended, unless this failed
            if until.is_set():
                break
            if not watched.has_opened:
                return watched.failure or f"{watched.name} ended ({status})"
            watched.succeed()
            pause_s = watched.child.pause_s()
            self._restarts.inc()
            fields = {"status": status, "reason": watched.failure, "pause_s": pause_s}
            log.error(watched.end_event, extra={**watched.fields, **fields})
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await until.wait()
        return None

    async def _run(self) -> int | str:
        """Run one process; return its status, or why it couldn't start."""
        watched = self._watched
        watched.failure = None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await watched.child.start(
                    stdin=theirs.fileno(), pass_fds=watched.pass_fds
                )
            except OSError as failure:
                ours.close()
                return type(failure).__name__
        watched.channel = await Channel.open(ours)
        listening = asyncio.create_task(self._listen(watched.channel))
        self._on_start()
        status = await process.wait()
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        listening.cancel()
        self._on_end(status)
        self._collector.remember(watched)
        watched.channel.close()
        watched.leave()
        return status

    async def _listen(self, channel: Channel) -> None:
        watched = self._watched
        async for message in channel.messages():
            match message["kind"]:
                case "state":
                    self._on_state(watched.take_state(message))
                case "failed":
                    watched.failure = message["reason"]
                case "report":
                    watched.measured = message["report"]
                    watched.reported.set()
                case "sum":
                    self._collector.answer_soon(channel)
