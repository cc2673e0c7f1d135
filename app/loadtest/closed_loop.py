"""A closed loop: each client waits for its answer before it asks again."""

import asyncio
import sys

from app.loadtest.connection import Connection, Target
from app.loadtest.loop import TIMEOUT, Loop, run_undisturbed
from app.loadtest.report import Report

RECONNECT_PAUSE_S = 0.05  # a server that is down is asked 20 times a second, not in a busy loop
DRAIN_S = 10.0  # after the end answers aren't counted, but waited for


class _ClosedLoop(Loop):
    """Each connection sends its next request when it has the answer to the last one."""

    def __init__(
        self, target: Target, report: Report, *, max_requests: int, keep_answers: bool
    ) -> None:
        super().__init__(target, report, keep_answers=keep_answers)
        self._left = max_requests
        self._sent = 0
        self._changed = asyncio.Event()  # a connection has nothing more to send

    async def run(self, connections: int) -> Report:
        """Run until the time or the requests are used up."""
        tasks = [asyncio.create_task(self._be_client()) for _ in range(connections)]
        await asyncio.wait(tasks, timeout=self.report.seconds + DRAIN_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._left <= 0:
            ends_s = [answer.finished_s for answer in self.report.answers]
            self.report.seconds = min(self.report.seconds, max(ends_s, default=1e-9))
        return self.finish()

    async def _be_client(self) -> None:
        """Keep one connection busy; connect again when the server hangs up."""
        while self._goes_on():
            connection = await self.connect()
            if isinstance(connection, str):
                self.record(self._take(), connection, self.now_s())
            else:
                await self._use(connection)
            if isinstance(connection, str) or connection.was_cut:
                await asyncio.sleep(RECONNECT_PAUSE_S)

    async def _use(self, connection: Connection) -> None:
        """Send the first request; `on_answer` sends the others."""
        try:
            if self._goes_on():
                self._send_next(connection)
            while connection.is_busy or (connection.is_open and self._goes_on()):
                self._changed.clear()
                await self._changed.wait()
        finally:
            if connection.is_busy:
                connection.abandon(TIMEOUT)
            connection.close()

    def _goes_on(self) -> bool:
        return self._left > 0 and self.now_s() < self.report.seconds

    def _take(self) -> int:
        """Return the number of the next request."""
        self._left -= 1
        self._sent += 1
        return self._sent - 1

    def _send_next(self, connection: Connection) -> None:
        number = self._take()
        connection.send(number, self.request(number), self.now_s())

    def on_answer(self, connection: Connection, outcome: str, raw: bytes) -> None:
        """Record an answer and send the next request, without a turn of the event loop."""
        super().on_answer(connection, outcome, raw)
        if connection.is_open and self._goes_on():
            self._send_next(connection)
        else:
            self._changed.set()


def closed_loop(
    target: Target,
    *,
    connections: int,
    seconds: float,
    max_requests: int = sys.maxsize,
    keep_answers: bool = False,
) -> Report:
    """Keep so many connections busy for so long, or until so many requests were sent."""

    async def run() -> Report:
        report = Report(seconds=seconds, counts_late=False)
        loop = _ClosedLoop(target, report, max_requests=max_requests, keep_answers=keep_answers)
        return await loop.run(connections)

    return run_undisturbed(run())
