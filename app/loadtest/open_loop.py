"""An open loop: requests are sent when they are due, however slow the answers are."""

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Sequence

from app.loadtest.connection import Connection, Target
from app.loadtest.loop import TIMEOUT, Loop, run_undisturbed
from app.loadtest.report import Report

UNSENT = "unsent"  # the client itself was at its bound
MAX_CONNECTIONS = 2048
# The event loop's timers have whole milliseconds; a shorter wait would be a busy one.
TICK_S = 0.001
# Between two looks whether the last answer has come.
LAST_LOOK_S = 0.02


class _OpenLoop(Loop):
    """Requests are sent when they are due, whether or not earlier ones have been answered."""

    def __init__(
        self,
        target: Target,
        report: Report,
        *,
        timeout_s: Callable[[int], float],
        keep_answers: bool,
    ) -> None:
        super().__init__(target, report, keep_answers=keep_answers)
        self._timeout_s = timeout_s
        self._free: list[Connection] = []
        self._leaving: list[tuple[float, int, Connection]] = []  # a heap: who leaves when
        self._opening: deque[asyncio.Task[None]] = deque()
        self._busy = 0

    async def run(self, due: Sequence[float]) -> Report:
        """Send each request when it is due; wait for the last answer, or its timeout."""
        for number, due_s in enumerate(due):
            await self._pass_time(due_s)
            self._send(number, due_s)
        while self._opening:
            await self._opening.popleft()
        while self._busy and self._leaving:
            await self._pass_time(min(self._leaving[0][0], self.now_s() + LAST_LOOK_S))
        for connection in self._free:
            connection.close()
        return self.finish()

    async def _pass_time(self, until_s: float) -> None:
        """Wait; clients whose timeout ends in the meantime leave."""
        while True:
            self._let_leave()
            if self.now_s() >= until_s:
                # However late it is, answers are read before the next request is sent.
                await asyncio.sleep(0)
                return
            wake_s = min(until_s, self._leaving[0][0]) if self._leaving else until_s
            await asyncio.sleep(max(TICK_S, wake_s - self.now_s()))

    def _let_leave(self) -> None:
        now_s = self.now_s()
        while self._leaving and self._leaving[0][0] <= now_s:
            _, number, connection = heapq.heappop(self._leaving)
            if connection.is_busy and connection.number == number:
                connection.abandon(TIMEOUT)

    def _send(self, number: int, due_s: float) -> None:
        """Send over a free connection, else over a new one."""
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                self._busy += 1
                self._send_over(connection, number, due_s)
                return
        if self._busy >= MAX_CONNECTIONS:
            self.record(number, UNSENT, due_s)
            return
        self._busy += 1
        self._opening.append(asyncio.create_task(self._connect_and_send(number, due_s)))
        while self._opening and self._opening[0].done():
            self._opening.popleft()

    async def _connect_and_send(self, number: int, due_s: float) -> None:
        connection = await self.connect()
        if isinstance(connection, str):
            self._busy -= 1
            self.record(number, connection, due_s)
        else:
            self._send_over(connection, number, due_s)

    def _send_over(self, connection: Connection, number: int, due_s: float) -> None:
        connection.send(number, self.request(number), due_s)
        leaves_s = due_s + self._timeout_s(number)
        heapq.heappush(self._leaving, (leaves_s, number, connection))

    def on_answer(self, connection: Connection, outcome: str, raw: bytes) -> None:
        """Record an answer; the connection is free for the next request."""
        super().on_answer(connection, outcome, raw)
        self._busy -= 1
        if connection.is_open:
            self._free.append(connection)


def arrivals(rate: float, seconds: float, *, seed: int = 0) -> list[float]:
    """Return when requests are due that come independently of each other, `rate` a second."""
    chance = random.Random(seed)  # noqa: S311 -- a load, not a secret
    due: list[float] = []
    at_s = chance.expovariate(rate)
    while at_s < seconds:
        due.append(at_s)
        at_s += chance.expovariate(rate)
    return due


def open_loop(
    target: Target,
    *,
    rate: float,
    seconds: float,
    timeout_s: Callable[[int], float],
    keep_answers: bool = False,
) -> Report:
    """Send `rate` requests a second; each client leaves at its timeout.

    Args:
        target: what is asked.
        rate: requests a second, at random times (the same in each run).
        seconds: how long.
        timeout_s: request number → seconds after which its client hangs up.
        keep_answers: whether the report holds the bytes of the answers.

    """

    async def run() -> Report:
        report = Report(seconds=seconds, counts_late=True)
        loop = _OpenLoop(target, report, timeout_s=timeout_s, keep_answers=keep_answers)
        return await loop.run(arrivals(rate, seconds))

    return run_undisturbed(run())
