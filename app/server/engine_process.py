"""The process of the models that front ends share: no address, no SQL, no requests of clients."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from app.core.metrics import Metrics
from app.core.otel import open_telemetry
from app.engines.loader import EngineTable
from app.errors import StartupError
from app.main import compose
from app.runtime.composition import Composition
from app.runtime.opening import open_runtime
from app.runtime.runtime import Runtime
from app.runtime.watching import OnFatal
from app.server.member import Member
from app.server.signals import SIGNALS
from app.settings import Settings, otel_variables
from app.sharing.host import EngineHost
from app.sharing.left_alone import leave_alone
from app.sharing.opening import shared_part

log = logging.getLogger(__name__)

EXIT_OK, EXIT_STARTUP_FAILED = 0, 1


class SharedPart(Composition):
    """The tasks of a service, for models that front ends share."""

    def engines(self) -> EngineTable:
        """Return all engines, which load nothing that front ends have to load themselves."""
        return leave_alone(Composition.engines(self))


@asynccontextmanager
async def open_host(
    settings: Settings, listener: socket.socket, *, on_fatal: OnFatal, began_s: float
) -> AsyncIterator[Runtime]:
    """Load the models that front ends share, and run them for those that connect.

    Args:
        settings: as the entry point read them.
        listener: where they connect.
        on_fatal: called on the loop when a required model can't be loaded.
        began_s: when the process began, as `time.monotonic` counts.

    Raises:
        StartupError: the settings or the catalogue can't be used.

    """
    chosen, catalog = compose(settings)
    bare = SharedPart(tasks=chosen.tasks, features=(), left_out={})
    shared = shared_part(catalog, chosen.engines())
    metrics = Metrics()
    telemetry = open_telemetry(otel_variables(), metrics, process="engine")
    async with open_runtime(
        settings, shared, bare, metrics=metrics, on_fatal=on_fatal, telemetry=telemetry
    ) as runtime:
        host = EngineHost(runtime.registry, runtime.steps, began_s=began_s, telemetry=telemetry)
        async with host.serving(listener):
            yield runtime


class EngineProcess(Member):
    """Runs the models until the first process says that no front end needs them any more."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._is_over = asyncio.Event()
        self._failure: StartupError | None = None

    def take(self, message: dict[str, Any]) -> None:
        """Take what the first process says to this one."""
        if message["kind"] == "end":
            self._is_over.set()

    async def run(self, settings: Settings, listener: socket.socket) -> None:
        """Run until the end.

        Raises:
            StartupError: a required model can't be loaded, or the catalogue can't be read.

        """
        loop = asyncio.get_running_loop()
        for number in (*SIGNALS, signal.SIGHUP):
            # To all processes of a service they mean that front ends drain: they need the models.
            loop.add_signal_handler(number, log.info, "signal_left_to_front_ends")
        # Before it is imports that take time.
        began_s = time.monotonic() - time.process_time()
        async with open_host(
            settings, listener, on_fatal=self._end_with, began_s=began_s
        ) as runtime:
            await self.join(runtime)
            await self._is_over.wait()
        if self._failure is not None:
            raise self._failure

    def _end_with(self, failure: StartupError) -> None:
        self._failure = failure
        self._is_over.set()


def serve_engines(listener: int, settings: Settings) -> int:
    """Be the engine's process, and return the exit status.

    Args:
        listener: the descriptor of the socket on which front ends connect.
        settings: as the entry point read them.

    """
    process = EngineProcess.inherit()
    try:
        uvloop.run(process.run(settings, socket.socket(fileno=listener)))
    except StartupError as failure:
        process.fail(failure)
        return EXIT_STARTUP_FAILED
    return EXIT_OK
