"""Replicas that are restarted, and nginx in front of them, which is told which are ready."""

import os
import shutil
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import free_ports
from benchmarks.venvs import bin_folder

START_WITHIN_S = 120.0
STOP_WITHIN_S = 40.0
NGINX = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 512; }}
http {{
  log_format turns '$msec $upstream_addr $status';
  access_log {folder}/access.log turns;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  upstream both {{ server 127.0.0.1:{a}; server 127.0.0.1:{b}; keepalive 32; }}
  upstream only_a {{ server 127.0.0.1:{a}; keepalive 32; }}
  upstream only_b {{ server 127.0.0.1:{b}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      set $turn both;
      if (-f {folder}/a.out) {{ set $turn only_b; }}
      if (-f {folder}/b.out) {{ set $turn only_a; }}
      proxy_pass http://$turn;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_next_upstream {retry};
      proxy_read_timeout 60s;
    }}
  }}
}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """How often readiness is asked for, and how many failures in a row take a replica out."""

    every_s: float
    failures: int


class Replica:
    """One service, which is started again and again on the same port."""

    def __init__(self, name: str, port: int, *, folder: Path, env: Mapping[str, str]) -> None:
        self.name, self.port = name, port
        self.out = folder / f"{name}.out"  # while it is there nginx sends nothing
        self._log = folder / f"{name}.log"
        self._env = {**env, "PORT": str(port)}
        self._process: subprocess.Popen[bytes] | None = None
        # When it was told to end, and when nginx was told not to send any more, by the clock.
        self.told_s: list[float] = []
        self.left_s: list[float] = []

    def start(self) -> float:
        """Start it; return the seconds until it was ready."""
        began_s = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [bin_folder(None) / "app", "serve"],
                cwd=self._log.parent,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        until(self.is_ready, f"{self.name} to be ready", START_WITHIN_S)
        return time.monotonic() - began_s

    def stop(self) -> tuple[int, float]:
        """End it as a deploy does; return the exit status, and the seconds that took."""
        assert self._process is not None  # noqa: S101  # it was started
        began_s = time.monotonic()
        self.told_s.append(time.time())
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_WITHIN_S), time.monotonic() - began_s

    def kill(self) -> None:
        """End it for certain."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def is_ready(self) -> bool:
        """Ask, as a load balancer does."""
        try:
            asked = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2)
        except OSError:  # also of a status that isn't 200
            return False
        with asked as answer:
            return bool(answer.status == 200)  # noqa: PLR2004

    @property
    def errors(self) -> list[str]:
        """Lines of its log that say that something went wrong."""
        lines = self._log.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if '"ERROR"' in line or "Traceback" in line]


def until(claim: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for another process."""
    end_s = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > end_s:
            raise TimeoutError(what)
        time.sleep(0.02)


@contextmanager
def checked(replica: Replica, check: Check) -> Iterator[None]:
    """Take a replica out of nginx's turn while it isn't ready."""
    is_over = threading.Event()

    def ask() -> None:
        failures = 0
        while not is_over.wait(check.every_s):
            failures = 0 if replica.is_ready() else failures + 1
            if not failures:
                replica.out.unlink(missing_ok=True)
            elif failures == check.failures:
                replica.out.touch()
                replica.left_s.append(time.time())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def after_signals(folder: Path, replica: Replica) -> int:
    """Count the requests that a replica answered between a SIGTERM and its leaving nginx's turn."""
    spans = [
        (told_s, min((s for s in replica.left_s if s > told_s), default=told_s))
        for told_s in replica.told_s
    ]
    count = 0
    for line in (folder / "access.log").read_text(encoding="utf-8").splitlines():
        ended, upstream = line.split(" ")[:2]
        is_its = upstream == f"127.0.0.1:{replica.port}"
        count += is_its and any(told < float(ended) <= left for told, left in spans)
    return count


@contextmanager
def nginx(folder: Path, replicas: list[Replica], *, retry: str) -> Iterator[int]:
    """Run nginx in front of the replicas; give its port."""
    (port,) = free_ports(1)
    a, b = (replica.port for replica in replicas)
    user = "user root;" if os.geteuid() == 0 else ""
    said = NGINX.format(folder=folder, user=user, port=port, a=a, b=b, retry=retry)
    (folder / "nginx.conf").write_text(said, encoding="utf-8")
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    process = subprocess.Popen(
        [program, "-p", folder, "-e", folder / "error.log", "-c", folder / "nginx.conf"]
    )
    try:
        until((folder / "nginx.pid").is_file, "nginx", 10)
        yield port
    finally:
        process.terminate()
        process.wait()
