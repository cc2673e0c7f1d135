"""Threads that run jobs: supervised, and restarted a few times when they die."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Generic, TypeVar

from app.core.logs import is_private

Job = TypeVar("Job")
log = logging.getLogger(__name__)

# A worker dies of a fault in our own code, never of an engine's exception. After one fault it is
# replaced; many in a short time need a new process.
MAX_RESTARTS = 3
RESTART_WINDOW_S = 60.0


@dataclass(slots=True, eq=False)
class _Slot:
    """One worker; its thread is replaced when it dies."""

    thread: threading.Thread | None = None
    busy_since_s: float | None = None
    is_dead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Calls(Generic[Job]):
    """What a worker calls: its threads alone hold it.

    These are methods of who made the workers and holds them. A circle would keep a closed model
    until garbage is collected, which is seldom, and for ever if it was there when the start froze
    what it had made.
    """

    take: Callable[[], Job | None]
    do: Callable[[Job], None]
    on_death: Callable[[], None]
    on_end: Callable[[], None]


class Workers(Generic[Job]):
    """Runs `do(take())` in threads until `take` gives None.

    Args:
        name: of the threads: `name-0`, `name-1`, …
        count: how many.
        take: blocks until there is a job; None ends the worker.
        do: runs a job; any exception kills the worker.
        on_death: called in a dying thread.
        on_end: called in the last thread that dies, when it can't be replaced.

    """

    def __init__(
        self,
        name: str,
        *,
        count: int,
        take: Callable[[], Job | None],
        do: Callable[[Job], None],
        on_death: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._deaths: deque[float] = deque(maxlen=MAX_RESTARTS + 1)
        self._slots = [_Slot() for _ in range(count)]
        calls = _Calls(take=take, do=do, on_death=on_death, on_end=on_end)
        for number, slot in enumerate(self._slots):
            self._start(number, slot, calls)

    def _start(self, number: int, slot: _Slot, calls: _Calls[Job]) -> None:
        name = f"{self._name}-{number}"
        args = (number, slot, calls)
        slot.thread = threading.Thread(target=self._supervise, args=args, name=name, daemon=True)
        slot.thread.start()

    def _supervise(self, number: int, slot: _Slot, calls: _Calls[Job]) -> None:
        """Run jobs; when one raises, log it and start a new thread for this worker."""
        is_private.set(True)  # the variable's name says it
        try:
            while (job := calls.take()) is not None:
                slot.busy_since_s = monotonic()
                calls.do(job)
                slot.busy_since_s = None
        except BaseException:  # the thread's last frame: nothing else would log it
            log.critical("worker_died", exc_info=True, extra={"worker": f"{self._name}-{number}"})
            slot.busy_since_s = None
            calls.on_death()
            if self._is_too_often() or not self._replace(number, slot, calls):
                slot.is_dead = True  # a new thread may set it first; it is never unset
            if all(slot.is_dead for slot in self._slots):
                calls.on_end()

    def _replace(self, number: int, slot: _Slot, calls: _Calls[Job]) -> bool:
        """Start a new thread for this worker; False when the system has none left."""
        try:
            self._start(number, slot, calls)
        except RuntimeError:
            return False
        return True

    def _is_too_often(self) -> bool:
        """Count a death; return whether there were too many lately to start another thread."""
        with self._lock:
            self._deaths.append(monotonic())
            is_full = len(self._deaths) > MAX_RESTARTS
            return is_full and self._deaths[-1] - self._deaths[0] < RESTART_WINDOW_S

    def longest_call_s(self) -> float:
        """Return for how long the oldest running job has been running; 0 when none is."""
        starts = [slot.busy_since_s for slot in self._slots]
        running = [start for start in starts if start is not None]
        return monotonic() - min(running) if running else 0.0

    def problems(self, *, max_call_s: float) -> list[str]:
        """Say what is dead or stuck; empty when all is well."""
        dead = sum(slot.is_dead for slot in self._slots)
        stuck_s = self.longest_call_s()
        problems = [f"{self._name}: {dead} of {len(self._slots)} workers dead"] if dead else []
        if stuck_s > max_call_s:
            problems.append(f"{self._name}: one engine call has been running for {stuck_s:.0f} s")
        return problems

    def join(self, *, timeout_s: float) -> bool:
        """Wait for the threads to end; return whether they all have."""
        until_s = monotonic() + timeout_s
        threads = [slot.thread for slot in self._slots if slot.thread is not None]
        for thread in threads:
            thread.join(max(0.0, until_s - monotonic()))
        return not any(thread.is_alive() for thread in threads)
