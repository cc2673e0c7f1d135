"""Clients that ask when they are due, whatever the answers do, and leave when their patience ends.

An open loop as in `open_loop.py`, on bare sockets and a selector of its own: it can open thousands
of connections a second, and several such loads run side by side.
"""

import selectors
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.loadtest.bare_connection import Address, BareConnection
from app.loadtest.loop import TIMEOUT, undisturbed
from app.loadtest.open_loop import UNSENT
from app.loadtest.report import OK, Answer, Report

# A refusal without Retry-After is an outcome of its own.
REFUSED = "503"
REFUSED_BARE = "503 without Retry-After"
# Between so many requests answers are read, however late the requests are.
SENT_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What clients ask, and when.

    Args:
        address: of the server.
        requests: sent in turn.
        due_s: when, in order; seconds since the start.
        patience_s: after which a client leaves, counted from when its request was due.
        is_kept: whether a connection serves the next client too; else each has a new one.
        max_connections: at once; a request that would need one more isn't sent.

    """

    address: Address
    requests: Sequence[bytes]
    due_s: Sequence[float]
    patience_s: float
    is_kept: bool
    max_connections: int


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one plan."""

    report: Report
    late_s: list[float] = field(default_factory=list)  # of each request: sent after it was due


class _Clients:
    """The clients of one plan."""

    def __init__(self, plan: Plan, selector: selectors.BaseSelector, seconds: float) -> None:
        self.outcome = Outcome(report=Report(seconds=seconds, counts_late=True))
        self._plan = plan
        self._selector = selector
        self._started_s = time.perf_counter()
        self._next = 0  # the number of the next request
        self._free: list[BareConnection] = []
        self._leaving: deque[tuple[float, int, BareConnection]] = deque()  # who leaves when
        self._busy = 0

    @property
    def is_done(self) -> bool:
        """Whether each request has its outcome."""
        return self._next == len(self._plan.due_s) and not self._busy

    def take_turn(self) -> None:
        """Let those leave whose patience has ended; send what is due."""
        self._let_leave()
        for _ in range(SENT_AT_ONCE):
            if self._next == len(self._plan.due_s) or self._plan.due_s[self._next] > self._now_s():
                return
            self._next += 1
            self._send(self._next - 1)

    def wait_s(self) -> float:
        """Return the seconds until its next turn."""
        wakes = [leaves_s for leaves_s, _, _ in list(self._leaving)[:1]]
        wakes += self._plan.due_s[self._next : self._next + 1]
        return max(0.0, min(wakes, default=0.0) - self._now_s())

    def close(self) -> None:
        """Close what is still open."""
        for connection in self._free:
            connection.close()

    def _now_s(self) -> float:
        return time.perf_counter() - self._started_s

    def _let_leave(self) -> None:
        now_s = self._now_s()
        while self._leaving and self._leaving[0][0] <= now_s:
            _, number, connection = self._leaving.popleft()
            if connection.is_busy and connection.number == number:
                connection.leave()

    def _send(self, number: int) -> None:
        due_s = self._plan.due_s[number]
        self.outcome.late_s.append(self._now_s() - due_s)
        connection = self._connection()
        if connection is None:
            self._record(number, UNSENT, due_s)
            return
        self._busy += 1
        self._leaving.append((due_s + self._plan.patience_s, number, connection))
        connection.send(number, self._plan.requests[number % len(self._plan.requests)], due_s)

    def _connection(self) -> BareConnection | None:
        """Return one that is free, or a new one; None at the bound."""
        while self._free:
            connection = self._free.pop()
            if connection.is_open:
                return connection
        if self._busy >= self._plan.max_connections:
            return None
        return BareConnection(self._selector, self._plan.address, self._on_end)

    def _on_end(self, connection: BareConnection, outcome: str) -> None:
        if outcome == REFUSED and not connection.answer.has(b"retry-after:"):
            outcome = REFUSED_BARE
        self._busy -= 1
        self._record(connection.number, outcome, connection.due_s)
        if not self._plan.is_kept:
            connection.close()
        elif connection.is_open:
            self._free.append(connection)

    def _record(self, number: int, outcome: str, due_s: float) -> None:
        now_s = self._now_s()
        if outcome == OK and now_s - due_s > self._plan.patience_s:
            outcome = TIMEOUT  # it came while its client was about to leave
        self.outcome.report.answers.append(Answer(number, outcome, now_s - due_s, now_s, b""))


def run_side_by_side(plans: Sequence[Plan], *, seconds: float) -> list[Outcome]:
    """Run plans until each request of each has its outcome: the last patience ends it."""
    cpu_s, started_s = time.process_time(), time.perf_counter()
    with undisturbed(), selectors.DefaultSelector() as selector:
        loads = [_Clients(plan, selector, seconds) for plan in plans]
        _run(loads, selector)
        for load in loads:
            load.close()
    share = (time.process_time() - cpu_s) / max(time.perf_counter() - started_s, 1e-9)
    for load in loads:
        load.outcome.report.cpu_share = share
    return [load.outcome for load in loads]


def _run(loads: Sequence[_Clients], selector: selectors.BaseSelector) -> None:
    while running := [load for load in loads if not load.is_done]:
        for load in running:
            load.take_turn()
        for key, _ in selector.select(min(load.wait_s() for load in running)):
            key.data.on_ready()
