"""Asks a class now and then whether it is well, in a thread of its own: `/health` never waits."""

import threading
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

from app.core.logs import is_private

EVERY_S: Final = 5.0  # as often as probes come, about
MAX_CHECK_S: Final = 30.0  # in a thread, which nothing ends


class HealthCheck:
    """Calls `check` again and again, and keeps what it said last.

    Args:
        check: returns what is wrong; None: nothing.
        name: of the thread.
        every_s: between two calls.
        max_check_s: that one may take; None: something else ends it.

    """

    def __init__(
        self,
        check: Callable[[], str | None],
        *,
        name: str,
        every_s: float = EVERY_S,
        max_check_s: float | None = MAX_CHECK_S,
    ) -> None:
        self._check = check
        self._every_s = every_s
        self._max_check_s = inf if max_check_s is None else max_check_s
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
        if began_s is not None and (late_s := monotonic() - began_s) > self._max_check_s:
            return [f"check has been running for {late_s:.0f} s"]
        return [self._problem] if self._problem else []

    def close(self) -> None:
        """Check no more."""
        self._is_closed.set()
