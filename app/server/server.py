"""What differs from uvicorn's server: signals, accepting, and a shutdown that drops nothing."""

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import cast

import uvicorn

from app.core.logs import announce
from app.core.request_kinds import PathKinds
from app.errors import StartupError
from app.runtime.applying import CatalogFile
from app.runtime.runtime import Runtime
from app.server.accepting import Acceptor, Refuse, refuse_none
from app.server.closing import Closing, wait
from app.server.drain import Drain
from app.server.early import EarlyRefusal
from app.server.front_end import FrontEnd
from app.server.gate import Gate
from app.server.gated import GatedHttpProtocol
from app.server.overload import Overload
from app.server.signals import handled

log = logging.getLogger(__name__)

# Of a process that takes the place of another: clients wait for it, and most no longer than that.
READY_TIMEOUT_S = 30.0
READY_POLL_S = 0.02


class Server(uvicorn.Server):
    """Uvicorn that prints its address, drops nothing when it ends, and has an exit status of ours.

    Args:
        config: uvicorn's.
        drain: the phases of the end.
        gate: decides which requests are refused.
        runtime: gives the runtime, once the lifespan has made it.
        root_path: what may stand before the paths of routes.
        on_overdue: called in a thread when the process should have ended long ago.

    """

    failure: StartupError | None = None

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Drain,
        gate: Gate,
        runtime: Callable[[], Runtime | None],
        root_path: str = "",
        on_overdue: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(config)
        self.drain = drain
        self.closing = Closing(self.server_state, drain)
        self.gate = gate
        self.overload: Overload | None = None  # once the lifespan has made the runtime
        self.probe_sockets: list[socket.socket] = []  # which answer probes only
        self.front_end: FrontEnd | None = None  # where this is one of several processes
        self.runtime = runtime
        self._root_path = root_path
        self._on_overdue = on_overdue
        self._overdue: threading.Timer | None = None
        self._acceptors: list[Acceptor] = []
        self._applying: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept and say so in one line, on standard error."""
        await super().startup(None if sockets is None else [])
        if not self.started:
            return
        if self.front_end is not None and self.front_end.is_successor:
            await self._until_ready()
        self.overload = overload = self._make_overload()
        make_protocol = partial(self._make_protocol, overload)
        for sock in sockets or []:
            self._accept(sock, make_protocol, refuse=EarlyRefusal(overload).refuse)
        for sock in self.probe_sockets:
            self._accept(sock, partial(make_protocol, has_probes_only=True))
            log.info("probes_listening", extra={"port": sock.getsockname()[1]})
        if self.front_end is None:
            print_address(self.servers[0].sockets[0])
        else:
            await self.front_end.open(cast("Runtime", self.runtime()), self.take_signals)

    async def _until_ready(self) -> None:
        """Accept nothing until the models are loaded, within a bound.

        What came to the one that has ended waits meanwhile: it would get a 503 else.
        """
        runtime = cast("Runtime", self.runtime())
        until_s = time.monotonic() + READY_TIMEOUT_S
        while not (runtime.loaded.is_set() and runtime.stored.is_set()):
            is_ending = self.should_exit or self.drain.begun_s is not None
            if is_ending or time.monotonic() > until_s:
                return
            await asyncio.sleep(READY_POLL_S)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT; unlike uvicorn's own, don't raise them again afterwards."""
        with handled(end=self.handle_exit, hang_up=self.handle_hangup):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # as uvicorn
        """Begin the shutdown, or shorten it; `/ready` says so from now on."""
        runtime = self.runtime()
        if self.drain.begun_s is None:
            # Not here: the signal may have come in the middle of a line of the log.
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(log.info, "drain_begun")
        self.drain.begin(time.monotonic(), was_ready=runtime is not None and runtime.is_ready())
        if runtime is not None:
            runtime.is_draining = True
        if self._on_overdue is not None:
            if self._overdue is not None:
                self._overdue.cancel()
            self._overdue = threading.Timer(self.drain.longest_s, self._on_overdue)
            self._overdue.daemon = True
            self._overdue.start()

    def handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        """Read the catalogue anew, or end where it is a terminal that hangs up."""
        runtime = self.runtime()
        if os.isatty(0):
            self.handle_exit(sig, frame)
        elif runtime is not None:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._apply_catalog, runtime)

    def _apply_catalog(self, runtime: Runtime) -> None:
        task = asyncio.ensure_future(runtime.part(CatalogFile).apply_and_log())
        self._applying.add(task)
        task.add_done_callback(self._applying.discard)

    def take_signals(self, count: int) -> None:
        """Do what so many signals do, those counted that this process got itself."""
        while self.drain.signals < min(count, 2):
            self.handle_exit(signal.SIGTERM, None)

    async def on_tick(self, counter: int) -> bool:
        """Let the gate learn, and tell uvicorn's loop whether to stop listening."""
        if self.overload is not None:
            self.overload.tick()
        return await super().on_tick(counter) or not self.drain.is_accepting(time.monotonic())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # uvicorn passes them
        """Stop listening, let requests end, and then close the app."""
        connections = len(self.server_state.connections)
        log.info("drain_closing", extra={"connections": connections})
        if self.front_end is not None:
            self.front_end.tell()  # so that new connections go to the others
        if self.overload is not None:
            self.overload.stop()
        await self.closing.stop_listening(self.servers, self._acceptors)
        self.drain.closed_s = time.monotonic()
        await self.closing.let_end()
        began_s = time.monotonic()
        closing = asyncio.create_task(self.lifespan.shutdown())
        await wait(closing.done, lambda now_s: self.drain.may_close(now_s, since_s=began_s))
        if not closing.done():
            log.error("drain_unfinished")
        log.info("drain_done", extra={"seconds": round(time.monotonic() - self.drain.closed_s, 2)})

    def fail(self, failure: StartupError) -> None:
        """Stop because a required model can't be loaded."""
        self.failure = failure
        self.should_exit = True

    def _accept(
        self,
        sock: socket.socket,
        make_protocol: Callable[[], asyncio.Protocol],
        *,
        refuse: Refuse = refuse_none,
    ) -> None:
        acceptor = Acceptor(sock, make_protocol, on_shortage=self._note_shortage, refuse=refuse)
        self._acceptors.append(acceptor)
        self.servers.append(cast("asyncio.Server", acceptor))

    def _make_overload(self) -> Overload:
        """Return what refuses requests, with the runtime that the lifespan has made."""
        runtime = cast("Runtime", self.runtime())
        overload = Overload(
            self.gate,
            kinds=PathKinds(runtime.request_kinds, root_path=self._root_path),
            metrics=runtime.metrics,
            is_admin=runtime.access.is_known_admin,
            is_closing=lambda: self.drain.begun_s is not None,
        )
        runtime.is_overloaded = overload.is_refusing
        return overload

    def _make_protocol(
        self, overload: Overload, *, has_probes_only: bool = False
    ) -> asyncio.Protocol:
        return GatedHttpProtocol(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            overload=overload,
            has_probes_only=has_probes_only,
        )

    def _note_shortage(self) -> None:
        if (runtime := self.runtime()) is not None:
            runtime.metrics.descriptor_shortages.inc()


def print_address(sock: socket.socket) -> None:
    """Say in one line, on standard error, where the service is."""
    host, port = sock.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    announce(f"ml-api: {url} (docs at /docs; ready when /ready is)", "listening", url=url)
