"""A real browser without a window, and a server that gives it pages beside the service.

The service sends no CORS headers, so a page can only ask it from the same origin: this server
stands where a proxy would, and passes each piece of an answer on as it comes.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# From the browser's start to the first word of its page, on a busy machine.
PAGE_TIMEOUT_S = 90
UPSTREAM_TIMEOUT_S = 60
KINDS = {".html": "text/html; charset=utf-8", ".mjs": "text/javascript; charset=utf-8"}
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)
# Tests stay on this machine: nothing is looked up, updated or reported.
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


class Site(ThreadingHTTPServer):
    """Pages, a service behind them, and what the pages report by POST /heard."""

    daemon_threads = True

    def __init__(self, service_url: str, pages: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.service = urlsplit(service_url)
        self.pages = pages
        self.heard: queue.Queue[Any] = queue.Queue()

    def hear(self) -> Any:
        """Return the next thing that a page reports."""
        return self.heard.get(timeout=PAGE_TIMEOUT_S)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        found = name in self.server.pages
        body = self.server.pages[name].encode() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", KINDS.get(Path(name).suffix, "text/plain"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/heard":
            self.server.heard.put(json.loads(body))
            self.send_response(204)
            self.end_headers()
        else:
            self._pass_on(body)

    def _pass_on(self, body: bytes) -> None:
        host, port = self.server.service.hostname, self.server.service.port
        with closing(HTTPConnection(str(host), port, timeout=UPSTREAM_TIMEOUT_S)) as upstream:
            upstream.request("POST", self.path, body, {"Content-Type": "application/json"})
            answer = upstream.getresponse()
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers["Content-Type"])
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while piece := answer.read1(65536):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: a failing test shows what the page has reported."""


@contextmanager
def opened(
    page: str, *, service_url: str, pages: Mapping[str, str], folder: Path
) -> Iterator[Site]:
    """Open a page in the browser, beside the service; close both when the block ends."""
    assert CHROMIUM is not None
    with Site(service_url, pages) as site:
        serving = threading.Thread(target=site.serve_forever, name="site")
        serving.start()
        with (folder / "browser.log").open("w") as log:
            browser = subprocess.Popen(
                [CHROMIUM, *QUIET, f"--user-data-dir={folder / 'profile'}", f"{site.url}/{page}"],
                stdout=log,
                stderr=log,
                start_new_session=True,  # it is many processes, and all of them have to end
            )
        try:
            yield site
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait(PAGE_TIMEOUT_S)
            site.shutdown()
            serving.join(PAGE_TIMEOUT_S)
