"""The metrics of all processes: asked for, added up, and kept of those that have ended."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from app.core.metrics import Metrics
from app.core.metrics_sum import Report, add_up, never_falling, render, report
from app.server.channel import Channel
from app.server.front import Watched

# For a front end's metrics: one that is busy answers in milliseconds.
REPORT_S = 1.0


class Collector:
    """Adds up the metrics of all processes, in the first one.

    Args:
        watched: all but this one.
        own: the metrics of this process, which are added too.

    """

    def __init__(self, watched: Sequence[Watched], *, own: Metrics) -> None:
        self._watched = watched
        self._own = own
        self._ended: Report = []  # what processes that have ended had counted
        self._sum: asyncio.Task[bytes] | None = None
        self._answers: set[asyncio.Task[None]] = set()

    def answer_soon(self, channel: Channel) -> None:
        """Send the sum to a front end that asks for it."""
        task = asyncio.create_task(self._answer(channel))
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def remember(self, ended: Watched) -> None:
        """Keep the counts that a process had when it was last asked, which were shown already."""
        self._ended = add_up([self._ended, never_falling(ended.measured)])

    async def _answer(self, channel: Channel) -> None:
        if self._sum is None or self._sum.done():
            self._sum = asyncio.create_task(self._add_up())
        channel.send("sum", text=(await asyncio.shield(self._sum)).decode())

    async def _add_up(self) -> bytes:
        """Return the metrics of all, of those that don't answer in time what they last said."""
        asked = [one for one in self._watched if one.is_listening]
        for one in asked:
            one.reported.clear()
            if one.channel is not None:
                one.channel.send("report")
        with suppress(TimeoutError):
            async with asyncio.timeout(REPORT_S):
                for one in asked:
                    await one.reported.wait()
        self._own.count_dropped_lines()
        own = report(self._own.registry)
        return render(add_up([self._ended, own, *(one.measured for one in self._watched)]))
