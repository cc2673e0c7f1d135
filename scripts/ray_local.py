"""A local Ray with the service on it, for `make ray-check`: started, measured, and ended."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.process import Running, adopt_orphans, free_ports, start, stop, tree

ROOT = Path(__file__).resolve().parents[1]
APPLICATION = "ml-api"
LATE_S = 300.0
TICKS = os.sysconf("SC_CLK_TCK")
OBJECTS_BYTES = 100 * 2**20
HOST = "127.0.0.1"
# Those that Ray would let its processes choose: it ends itself where that takes 15 seconds.
PORTS = (
    "--dashboard-agent-grpc-port",
    "--dashboard-agent-listen-port",
    "--metrics-export-port",
    "--runtime-env-agent-port",
    "--ray-client-server-port",
)
# Nothing is sent to Ray's makers; workers start when they are needed; a busy machine is waited for.
RAY_SETTINGS = {
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "300",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
}
# Of a process, by the start of its title; the first that fits.
ROLES = {
    f"ray::ServeReplica:{APPLICATION}:Service": "front",
    f"ray::ServeReplica:{APPLICATION}:": "replicas",
    "ray::ProxyActor": "proxy",
}
REST = "Ray besides"


@contextmanager
def local_ray(settings: Mapping[str, str]) -> Iterator[None]:
    """Run Ray during the block, with settings for all that runs on it; nothing of it is left.

    The processor is shared by what Ray believes to be eight cores: replicas are given theirs by a
    number that nobody checks.
    """
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        own = {"PYTHONPATH": f"{ROOT}:{ROOT / 'deploy' / 'ray'}", **RAY_SETTINGS}
        own["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # Ray listens on the machine's own address
        os.environ |= {**own, **settings}
        port, *ports = free_ports(1 + len(PORTS))
        os.environ["RAY_ADDRESS"] = f"{HOST}:{port}"
        try:
            _start(folder, port, ports)
            ray = import_module("ray")  # which reads its settings when it is imported
            ray.init("auto", log_to_driver=False, logging_level="warning")
            try:
                yield
            finally:
                ray.shutdown()
        finally:
            end_children()


def _start(folder: str, port: int, ports: Iterable[int]) -> None:
    """Start Ray's processes; they end with this one's other children."""
    options = zip(PORTS, map(str, ports), strict=True)
    command = [
        *(Path(sys.executable).parent / "ray", "start", "--head", "--include-dashboard=false"),
        *("--node-ip-address", HOST, "--port", str(port), "--num-cpus", "8"),
        *("--object-store-memory", OBJECTS_BYTES, "--temp-dir", folder),
        *(part for option in options for part in option),
    ]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, timeout=LATE_S)


def end_children() -> None:
    """End what has been started here and is still there, each by its number."""
    until_s = time.monotonic() + 10
    while left := [member.pid for member in tree(os.getpid()) if member.pid != os.getpid()]:
        is_late = time.monotonic() > until_s
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if is_late else signal.SIGTERM)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)


@contextmanager
def on_ray(replicas: int, port: int) -> Iterator[str]:
    """Deploy the service with so many replicas of each model; give its address."""
    sys.path.insert(0, str(ROOT / "deploy" / "ray"))
    service = import_module("service")
    serve = import_module("ray.serve")
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": "127.0.0.1", "port": port},
        logging_config={"log_level": "ERROR", "enable_access_log": False},
    )
    application = service.build(service.Arguments(replicas=replicas))
    serve.run(application, name=APPLICATION, route_prefix="/")
    try:
        yield ready(f"http://127.0.0.1:{port}")
    finally:
        serve.shutdown()


@contextmanager
def served(name: str, folder: Path, **settings: str) -> Iterator[tuple[str, Running]]:
    """Run `app serve` during the block; give its address."""
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).parent / "app"), "serve", "--port", str(port)]
    running = start(
        command,
        port=port,
        env={**os.environ, **settings},
        folder=ROOT,
        log=folder / f"{name}.log",
    )
    try:
        yield ready(f"http://127.0.0.1:{port}", running), running
    finally:
        stop(running)


def ready(url: str, running: Running | None = None) -> str:
    """Wait until a service is ready."""
    until_s = time.monotonic() + LATE_S
    while time.monotonic() < until_s:
        if running is not None and running.process.poll() is not None:
            sys.exit(f"the service ended: {running.last_words}")
        with (
            contextlib.suppress(OSError),  # also of an answer that isn't 200
            urllib.request.urlopen(f"{url}/ready", timeout=10),
        ):
            return url
        time.sleep(0.2)
    sys.exit(f"{url} isn't ready after {LATE_S:.0f} s")


def title(pid: int) -> str:
    """Return what a process calls itself; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return ""


def replica_pids(model: str) -> list[int]:
    """Return the processes of a model's replicas."""
    start_of = f"ray::ServeReplica:{APPLICATION}:{model}"
    return [m.pid for m in tree(os.getpid()) if title(m.pid).startswith(start_of)]


def processor_s(services: Mapping[str, Running]) -> dict[str, float]:
    """Return the processor seconds of all processes but this one, by what they do.

    Args:
        services: those that were started here, by name.

    """
    spent: defaultdict[str, float] = defaultdict(float)
    of_services = {m.pid: name for name, one in services.items() for m in tree(one.process.pid)}
    for member in tree(os.getpid()):
        if member.pid != os.getpid():
            name = title(member.pid)
            role = next((r for begin, r in ROLES.items() if name.startswith(begin)), REST)
            spent[of_services.get(member.pid, role)] += _times_s(member.pid)
    return spent


def _times_s(pid: int) -> float:
    try:
        fields: list[Any] = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:13])) / TICKS


def convert(program: Path, folder: Path) -> None:
    """Have the packaged classifier converted by an environment that has what it takes."""
    if not (folder / "sentiment").exists():
        subprocess.run([program, "models", "bake", str(folder)], check=True)
