"""What closed and open loops share: the clock, the connections, the answers."""

import asyncio
import gc
import ssl
import sys
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from app.loadtest.connection import Connection, Target
from app.loadtest.report import Answer, Report

if sys.platform == "win32":
    from asyncio import run as _run
else:
    from uvloop import run as _run

Result = TypeVar("Result")

UNCONNECTED = "unconnected"  # nothing answers at the address
UNTRUSTED = "untrusted"  # the server's certificate isn't one for its name
TIMEOUT = "timeout"  # the client left first
CONNECT_TIMEOUT_S = 2.0


class Loop:
    """One load, from its start to its report."""

    def __init__(self, target: Target, report: Report, *, keep_answers: bool) -> None:
        self.report = report
        self._target = target
        self._keep_answers = keep_answers
        # Not the event loop's own clock: uvloop's has whole milliseconds.
        self._started_s = time.perf_counter()
        self._cpu_s = time.process_time()

    def now_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started_s

    def request(self, number: int) -> bytes:
        """Return the bytes of a request."""
        return self._target.requests[number % len(self._target.requests)]

    async def connect(self) -> Connection | str:
        """Open a connection, or return the outcome of a request that has none."""
        opening = asyncio.get_running_loop().create_connection(
            lambda: Connection(self.on_answer),
            self._target.host,
            self._target.port,
            ssl=self._target.tls,
        )
        try:
            _, connection = await asyncio.wait_for(opening, CONNECT_TIMEOUT_S)
        except ssl.SSLCertVerificationError:
            return UNTRUSTED
        except OSError:  # TimeoutError is one
            return UNCONNECTED
        return connection

    def record(self, number: int, outcome: str, since_s: float, raw: bytes = b"") -> None:
        """Record the outcome of a request."""
        now_s = self.now_s()
        stored = raw if self._keep_answers else b""
        self.report.answers.append(Answer(number, outcome, now_s - since_s, now_s, stored))

    def on_answer(self, connection: Connection, outcome: str, raw: bytes) -> None:
        """Record an answer."""
        self.record(connection.number, outcome, connection.due_s, raw)

    def finish(self) -> Report:
        """Return the report."""
        elapsed_s = max(self.now_s(), 1e-9)
        self.report.cpu_share = (time.process_time() - self._cpu_s) / elapsed_s
        return self.report


@contextmanager
def undisturbed() -> Iterator[None]:
    """Switch the collector off, which would stop the client for milliseconds at a time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def run_undisturbed(loop: Coroutine[Any, Any, Result]) -> Result:
    """Run a load on an event loop of its own, without the collector."""
    with undisturbed():
        return _run(loop)
