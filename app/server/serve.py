"""Runs the app under uvicorn."""

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import uvicorn

from app.errors import StartupError
from app.main import compose, create_app
from app.server.descriptors import limit, needed_descriptors
from app.server.drain import Drain, LastAnswers
from app.server.front_end import FrontEnd, Place
from app.server.fronts import FrontEnds
from app.server.gate import Gate
from app.server.listening import listening, listening_apart
from app.server.nameless import nameless
from app.server.processes import Listening
from app.server.protocol import BoundedHttpProtocol
from app.server.server import Server
from app.server.sole import kept_files, sole
from app.settings import Settings
from app.sharing.opening import shared_part

log = logging.getLogger(__name__)

# Longer than the 60 s for which an AWS load balancer keeps an idle connection: otherwise it sends
# a request down a connection that this server is just closing, and answers 502.
KEEP_ALIVE_S = 75
EXIT_OK, EXIT_STARTUP_FAILED = 0, 1


def make_server(
    settings: Settings,
    *,
    on_overdue: Callable[[], None] | None = None,
    engine_at: str | None = None,
) -> Server:
    """Return a server around a new app, not started yet.

    Args:
        settings: as read by the entry point.
        on_overdue: called in a thread when the process should have ended long ago.
        engine_at: as `create_app` takes it.

    Raises:
        CatalogError: the catalogue can't be read.

    """

    def on_fatal(failure: StartupError) -> None:
        server.fail(failure)

    app = create_app(settings, on_fatal=on_fatal, engine_at=engine_at)
    drain = Drain(delay_s=settings.drain_delay_s, budget_s=settings.shutdown_budget_s)
    server = Server(
        uvicorn.Config(
            LastAnswers(app, drain),
            host=settings.host,
            port=settings.port,
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="on",  # "auto" serves on when the app fails before its start
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # uvicorn would believe X-Forwarded-For of anyone on this machine
            timeout_keep_alive=KEEP_ALIVE_S,
        ),
        drain=drain,
        gate=Gate(
            max_in_flight=settings.max_in_flight,
            timeout_s=settings.request_timeout_ms / 1000,
            now_s=time.monotonic(),
        ),
        runtime=lambda: getattr(app.state, "runtime", None),
        root_path=settings.root_path,
        on_overdue=on_overdue,
    )
    return server


def serve(settings: Settings, *, on_overdue: Callable[[], None] | None = None) -> int:
    """Serve until a signal comes, and return the exit status.

    Args:
        settings: as read by the entry point.
        on_overdue: called in a thread when the process should have ended long ago.

    Raises:
        StartupError: a setting can't be used, the catalogue can't be read, the address can't be
            used, another service has the same SQLite file or Valkey, or a required model can't be
            loaded.

    """
    if limit() < needed_descriptors(settings):
        log.warning(
            "few_descriptors", extra={"limit": limit(), "wanted": needed_descriptors(settings)}
        )
    if settings.front_ends > 1:
        return serve_fronts(settings)
    server = make_server(settings, on_overdue=on_overdue)
    kept = kept_files(compose(settings)[0], settings)
    run(server, probe_port=settings.probe_port, kept=kept)
    return EXIT_OK


def serve_fronts(settings: Settings) -> int:
    """Serve with several processes until a signal comes, and return the exit status.

    Raises:
        StartupError: as `serve`, or a front end ended before it had loaded its models.

    """
    if sys.platform != "linux":
        raise StartupError("FRONT_ENDS: more than one needs Linux")
    chosen, catalog = compose(settings)
    count = settings.front_ends
    is_sharing = (
        settings.share_models
        and not settings.ray_app  # whose replicas have those models
        and bool(shared_part(catalog, chosen.engines()).specs)
    )
    with ExitStack() as stack:
        sockets = stack.enter_context(
            listening_apart(settings.host, settings.port, processes=count)
        )
        probe_sockets: list[list[socket.socket]] = [[] for _ in range(count)]
        if settings.probe_port is not None:
            probe_sockets = stack.enter_context(
                listening_apart(settings.host, settings.probe_port, "PROBE_PORT", processes=count)
            )
        stack.enter_context(sole(kept_files(chosen, settings)))
        engine_socket = stack.enter_context(nameless()) if is_sharing else None
        listening = Listening(sockets, probe_sockets, engine_socket)
        return asyncio.run(FrontEnds(settings, chosen, listening).run())


def serve_as(
    place: Place, settings: Settings, *, on_overdue: Callable[[], None] | None = None
) -> int:
    """Serve as one of several front ends, and return the exit status.

    What stops the start is told to the first process, which prints it.
    """
    front_end = FrontEnd.inherit()
    try:
        server = make_server(settings, on_overdue=on_overdue, engine_at=place.engine_at)
        front_end.is_successor = place.is_successor
        server.front_end = front_end
        server.probe_sockets = [socket.socket(fileno=number) for number in place.probe_sockets]
        run_on(server, [socket.socket(fileno=number) for number in place.sockets])
    except StartupError as failure:
        front_end.fail(failure)
        return EXIT_STARTUP_FAILED
    return EXIT_OK


def run(server: Server, *, probe_port: int | None = None, kept: Sequence[Path] = ()) -> None:
    """Run a server until a signal comes; raises as `serve` does.

    Args:
        server: not started yet.
        probe_port: where only probes are answered; None: nowhere.
        kept: what no other service may have meanwhile.

    """
    host = server.config.host
    with ExitStack() as stack:
        sockets = stack.enter_context(listening(host, server.config.port))
        if probe_port is not None:
            server.probe_sockets = stack.enter_context(listening(host, probe_port, "PROBE_PORT"))
        stack.enter_context(sole(kept))
        run_on(server, sockets)


def run_on(server: Server, sockets: list[socket.socket]) -> None:
    """Run a server on sockets that listen already; raises as `serve` does."""
    try:
        server.run(sockets)
    except SystemExit:  # uvicorn's way to end when the lifespan fails
        raise StartupError("the start failed; the log says why") from None
    if server.failure is not None:
        raise server.failure
