"""Runs the app under uvicorn, and owns its signals."""

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from app.errors import StartupError
from app.main import create_app
from app.protocol import BoundedHttpProtocol
from app.runtime import Runtime
from app.settings import Settings

# Longer than the 60 s for which an AWS load balancer keeps an idle connection: otherwise it sends
# a request down a connection that this server is just closing, and answers 502.
KEEP_ALIVE_S = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Uvicorn that says where to look, and exits with a status of ours."""

    failure: StartupError | None = None
    runtime: Callable[[], Runtime] | None = None  # once the lifespan has made it

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Start listening and say so in one line, on standard output."""
        await super().startup(sockets)  # type: ignore[arg-type]  # uvicorn passes its own
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(
                f"ml-api: http://{shown}:{port} (docs at /docs; ready when /ready is)", flush=True
            )

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGTERM and SIGINT; unlike uvicorn's own, don't raise them again afterwards."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let `/ready` say so on connections that are still open."""
        if self.runtime is not None:
            self.runtime().is_draining = True
        super().handle_exit(sig, frame)

    def fail(self, failure: StartupError) -> None:
        """Stop because a required model can't be loaded."""
        self.failure = failure
        self.should_exit = True


def make_server(settings: Settings) -> Server:
    """Return a server around a new app, not started yet.

    Raises:
        CatalogError: the catalogue can't be read.

    """

    def on_fatal(failure: StartupError) -> None:
        server.fail(failure)

    app = create_app(settings, on_fatal=on_fatal)
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http=BoundedHttpProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # uvicorn would believe X-Forwarded-For of anyone on this machine
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=settings.shutdown_budget_s,
        )
    )
    server.runtime = lambda: app.state.runtime
    return server


def serve(settings: Settings) -> None:
    """Serve until a signal comes.

    Raises:
        StartupError: the catalogue can't be read, or a required model can't be loaded.

    """
    server = make_server(settings)
    server.run()
    if server.failure is not None:
        raise server.failure
