"""How a child process of the service is started, restarted and stopped."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import app.core.parent
from app.core.backoff import Backoff

log = logging.getLogger(__name__)

# A process that ran for so long is restarted at once; after shorter runs the pause grows.
HEALTHY_S = 60.0
BACKOFF = Backoff(first_s=0.1, max_s=5.0)


@dataclass(slots=True, kw_only=True)
class Child:
    """A child process: how it is started, and when it last was."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stop_s: float
    process: asyncio.subprocess.Process | None = None
    started_s: float = 0.0
    failures: int = 0  # short runs in a row

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.returncode is None

    async def start(
        self, *, stdin: int = asyncio.subprocess.DEVNULL, pass_fds: Sequence[int] = ()
    ) -> asyncio.subprocess.Process:
        """Start it; it dies with this process, and doesn't get the terminal's signals.

        Args:
            stdin: what its standard input is.
            pass_fds: descriptors that it gets, under the same numbers.

        Raises:
            OSError: there is no memory, or there are too many processes; both are temporary.

        """
        launcher = [sys.executable, "-I", "-S", str(app.core.parent.__file__), str(os.getpid())]
        self.started_s = time.monotonic()
        self.process = await asyncio.create_subprocess_exec(
            *launcher,
            *self.command,
            env=dict(self.environment),
            stdin=stdin,
            stdout=asyncio.subprocess.DEVNULL,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        return self.process

    def pause_s(self) -> float:
        """Return how long to wait before it is started again."""
        if time.monotonic() - self.started_s > HEALTHY_S:
            self.failures = 0
        self.failures += 1
        return BACKOFF.pause_s(self.failures)

    async def stop(self) -> None:
        """End it: by SIGTERM twice, the second for an immediate stop, then by SIGKILL."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        for number, timeout_s in (
            (signal.SIGTERM, self.stop_s / 2),
            (signal.SIGTERM, self.stop_s / 2),
            (signal.SIGKILL, None),
        ):
            if number == signal.SIGKILL:
                log.warning("child_killed", extra={"child": self.name})
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await process.wait()
                    return
