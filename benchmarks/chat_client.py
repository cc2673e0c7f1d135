"""The load client of chat: so many streams at once, each asks again when its answer has ended.

An answer's bytes are kept with the times at which they came, and read when the load is over: the
client shares the machine with what it measures.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from app.loadtest.connection import CLOSED, Connection
from app.loadtest.loop import CONNECT_TIMEOUT_S, UNCONNECTED, run_undisturbed
from app.loadtest.report import OK
from benchmarks.chat_streams import UNFINISHED, Exchange, Load, ReadLine, read_stream

RETRY_PAUSE_S = 0.05  # a server that refuses is asked 20 times a second, not in a busy loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Where the requests go, how they are made, and how the answers are read."""

    port: int
    request: Callable[[int], bytes]
    read_line: ReadLine


class StreamConnection(Connection):
    """A connection that notes when each part of an answer came."""

    def __init__(self) -> None:
        super().__init__(lambda _, outcome, raw: self._note_end(outcome, raw))
        self._answered: asyncio.Future[str] | None = None
        self._size = 0
        self.raw = b""
        self.marks: list[tuple[int, float]] = []

    async def ask(self, request: bytes) -> str:
        """Send a request, wait for the whole answer, and return its outcome."""
        self._size, self.raw, self.marks = 0, b"", []
        self._answered = asyncio.get_running_loop().create_future()
        self.send(0, request, 0.0)
        return await self._answered

    def data_received(self, data: bytes) -> None:
        """Note the time, and collect."""
        self._size += len(data)
        self.marks.append((self._size, time.perf_counter()))
        super().data_received(data)

    def leave(self) -> None:
        """Hang up in the middle of an answer; what has come of it stays."""
        self.raw = self._answer.received
        self.is_busy = False
        self.close()

    def _note_end(self, outcome: str, raw: bytes) -> None:
        """Be told by the base class that an answer has ended."""
        self.raw = raw
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(outcome)


class _StreamLoad:
    """One load, from its start to its end."""

    def __init__(self, asked: Asked, numbers: Iterator[int], *, seconds: float) -> None:
        self._asked = asked
        self._numbers = numbers
        self._seconds = seconds
        self._exchanges: list[Exchange] = []
        self._started_s = time.perf_counter()

    async def run(self, streams: int, *, patience_s: float) -> Load:
        """Run for the time given; then wait for answers that have begun, within reason."""
        cpu_s = time.process_time()
        tasks = [asyncio.create_task(self._be_reader()) for _ in range(streams)]
        await asyncio.wait(tasks, timeout=self._seconds + patience_s)
        cpu_share = (time.process_time() - cpu_s) / max(self._now_s(), 1e-9)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            if not task.cancelled() and (failure := task.exception()):
                raise failure
        return Load(
            seconds=self._seconds,
            streams=[read_stream(found, self._asked.read_line) for found in self._exchanges],
            cpu_share=cpu_share,
        )

    def _now_s(self) -> float:
        return time.perf_counter() - self._started_s

    def _is_over(self) -> bool:
        return self._now_s() >= self._seconds

    async def _be_reader(self) -> None:
        """Ask one prompt after another over one connection, as long as the server keeps it."""
        connection: StreamConnection | None = None
        try:
            while True:
                kept = connection if connection is not None and connection.is_open else None
                connection = await self._ask(kept)
                if self._is_over():
                    return
        finally:
            if connection is not None:
                connection.close()

    async def _ask(self, kept: StreamConnection | None) -> StreamConnection | None:
        """Ask one prompt; return the connection that it went over."""
        request = self._asked.request(next(self._numbers))
        connection = kept or await connect(self._asked.port)
        since_s = self._now_s()
        outcome = await self._exchange(connection, request, since_s)
        if outcome == CLOSED and kept is not None and not kept.raw:
            # llama.cpp's server hangs up after each stream without announcing it; HTTP clients
            # that find a kept connection closed ask again over another.
            connection = await connect(self._asked.port)
            outcome = await self._exchange(connection, request, since_s)
        self._record(outcome, connection, since_s)
        if outcome != OK:
            await asyncio.sleep(RETRY_PAUSE_S)
        return connection

    async def _exchange(
        self, connection: StreamConnection | None, request: bytes, since_s: float
    ) -> str:
        if connection is None:
            return UNCONNECTED
        try:
            return await connection.ask(request)
        except asyncio.CancelledError:
            connection.leave()
            self._record(UNFINISHED, connection, since_s)
            raise

    def _record(self, outcome: str, connection: StreamConnection | None, started_s: float) -> None:
        raw = connection.raw if connection else b""
        seen = connection.marks if connection else []
        marks = [(size, at_s - self._started_s) for size, at_s in seen]
        self._exchanges.append(Exchange(started_s=started_s, outcome=outcome, raw=raw, marks=marks))


async def connect(port: int) -> StreamConnection | None:
    """Open a connection to loopback, or return None if that can't be done in time."""
    opening = asyncio.get_running_loop().create_connection(StreamConnection, "127.0.0.1", port)
    try:
        _, connection = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
    except OSError:  # TimeoutError is one
        return None
    return connection


def stream_load(
    asked: Asked, numbers: Iterator[int], *, streams: int, seconds: float, patience_s: float
) -> Load:
    """Keep so many streams busy for so long.

    Args:
        asked: the server.
        numbers: of the prompts, each of which is asked once.
        streams: at once.
        seconds: after which nothing more is asked, and no more tokens are counted; with 0 each
            stream asks once.
        patience_s: how long after that answers are waited for.

    """

    async def run() -> Load:
        load = _StreamLoad(asked, numbers, seconds=seconds)
        return await load.run(streams, patience_s=patience_s)

    return run_undisturbed(run())
