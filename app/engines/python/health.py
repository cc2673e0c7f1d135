"""Asks a class now and then whether it is well, in a thread of its own: `/health` never waits."""

import threading
from collections.abc import Callable
from time import monotonic
from typing import Final

from app.core.logs import is_private

EVERY_S: Final = 5.0  # as often as probes come, about
MAX_CHECK_S: Final = 30.0


class HealthCheck:
    """Calls `check` again and again, and keeps what it said last.

    Args:
        check: returns what is wrong; None: nothing.
        name: of the thread.
        every_s: between two calls.

    """

    def __init__(
        self, check: Callable[[], str | None], *, name: str, every_s: float = EVERY_S
    ) -> None:
        self._check = check
        self._every_s = every_s
        self._problem: str | None = None
        self._began_s: float | None = None
        self._is_closed = threading.Event()
        threading.Thread(target=self._run, name=f"{name}-check", daemon=True).start()

    def _run(self) -> None:
        is_private.set(True)  # the variable's name says it
        while not self._is_closed.is_set():
            self._began_s = monotonic()
            self._problem = self._check()
            self._began_s = None
            self._is_closed.wait(self._every_s)

    def problems(self) -> list[str]:
        """Return what was wrong at the last check, or that it doesn't end."""
        began_s = self._began_s
        if began_s is not None and (late_s := monotonic() - began_s) > MAX_CHECK_S:
            return [f"check has been running for {late_s:.0f} s"]
        return [self._problem] if self._problem else []

    def close(self) -> None:
        """Check no more."""
        self._is_closed.set()
