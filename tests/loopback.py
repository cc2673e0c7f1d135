"""What servers of tests share that answer HTTP on loopback, in threads of this process."""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Self

WAIT_S = 20.0  # no test is that slow; a hanging one ends


class LoopbackServer:
    """A server; `with` starts and stops it.

    Args:
        handler: as `http.server` calls it for each connection.

    """

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Refuse new connections; once more does nothing."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join(WAIT_S)
        self._server.server_close()
