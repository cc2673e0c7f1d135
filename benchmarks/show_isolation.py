"""Shows what processes of Python classes promise, and what they cost.

Usage: python -m benchmarks.show_isolation kills [--times 20], or cost [--rounds 7] [--seconds 4].

`kills` sends SIGKILL, SIGSTOP and SIGSEGV to the process of one model under load: the others lose
nothing, and it is back within 2 s beside its load. `cost` asks the same class in a thread and in a
process in turn, and prints requests a second and processor time of all processes.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import make_target
from app.loadtest.report import OK, Report
from benchmarks import process
from benchmarks.contest import until_answers
from benchmarks.show_storage import fetch

CODE = """
import os

class Model:
    def predict(self, items: list[str]) -> list[str]:
        return [str(os.getpid()) if item == "pid" else item.upper() for item in items]
"""
CALL_TIMEOUT_S = 1.0
ENTRY = """
[[models]]
name = "{name}"
engine = "python"
source = "file:model.py:Model"
required = {required}
isolation = "{isolation}"
timeout_s = {timeout_s}
"""
FAKE = '[[models]]\nname = "dummy"\nengine = "fake"\nfake = {}\n'
VICTIM, NEIGHBOUR, DUMMY = "victim", "neighbour", "dummy"
ENDS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV)
CONNECTIONS = 4  # of each model
WANTED_BACK_S = 2.0
BETWEEN_S = 0.5  # that it serves before the next end
GROWTH_MB = 10.0
LATE_S = 30.0
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(entries: str) -> Iterator[process.Running]:
    """Start the service on these models."""
    (port,) = process.free_ports(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.py").write_text(CODE, encoding="utf-8")
        (folder / "models.toml").write_text(entries, encoding="utf-8")
        env = {
            **os.environ,
            "DATA_DIR": str(folder / "data"),
            "MODELS_FILE": str(folder / "models.toml"),
            "PORT": str(port),
            "FEATURES": "none",
            "LOG_LEVEL": "error",
        }
        command = [sys.executable, "-P", "-m", "app", "serve"]
        log = folder / "log"
        env["PYTHONPATH"] = str(Path(__file__).parent.parent)
        running = process.start(command, port=port, env=env, folder=folder, log=log)
        try:
            until_answers(running, lambda: fetch(port, "/ready"))
            yield running
        finally:
            process.stop(running)


def entry(name: str, isolation: str, *, required: bool = True, timeout_s: float = 30.0) -> str:
    """Return a model of the catalogue."""
    is_required = "true" if required else "false"
    return ENTRY.format(name=name, isolation=isolation, required=is_required, timeout_s=timeout_s)


def ask(port: int, name: str, item: str) -> str:
    """Return a model's answer to one item."""
    answer: str = json.loads(fetch(port, f"/predict/{name}", body=json.dumps(item).encode()))
    return answer


def in_background(port: int, name: str, seconds: float) -> "tuple[threading.Thread, list[Report]]":
    """Ask a model all the time, from a process of its own."""
    body: Callable[[str], bytes] = lambda text: json.dumps(  # noqa: E731  # of two kinds
        {"text": text} if name == DUMMY else text
    ).encode()
    target = make_target(f"http://127.0.0.1:{port}/predict/{name}", ["good", "bad"], body=body)
    reports: list[Report] = []
    thread = threading.Thread(
        target=lambda: reports.append(closed_loop(target, connections=CONNECTIONS, seconds=seconds))
    )
    thread.start()
    return thread, reports


def wait_back(port: int) -> str:
    """Wait until the victim answers again; return the number of its process."""
    until_s = time.monotonic() + LATE_S
    while True:
        try:
            return ask(port, VICTIM, "pid")
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.01)


def load_seconds(port: int) -> float:
    """Return how long the victim took to load at the start."""
    lines = fetch(port, "/metrics").decode().splitlines()
    line = next(
        one for one in lines if one.startswith("mlapi_model_load_seconds") and VICTIM in one
    )
    return float(line.rpartition(" ")[2])


def show_kills(times: int) -> bool:
    """End the victim's process again and again; return whether the promise holds."""
    entries = FAKE + entry(NEIGHBOUR, "process")
    entries += entry(VICTIM, "process", required=False, timeout_s=CALL_TIMEOUT_S)
    holds = True
    with serving(entries) as running:
        port = running.port
        wait_back(port)  # it isn't required, so that `/ready` says nothing of it
        load_s = load_seconds(port)
        print(f"load: {load_s:.2f} s", flush=True)
        for number in ENDS:
            holds &= _show_end(running, number, times, load_s)
    return holds


def _show_end(running: process.Running, number: signal.Signals, times: int, load_s: float) -> bool:
    port, root = running.port, running.process.pid
    wait_back(port)
    stopping_s = CALL_TIMEOUT_S if number is signal.SIGSTOP else 0.0
    seconds = times * (BETWEEN_S + load_s + stopping_s + WANTED_BACK_S)
    before = process.memory_mb(root), _descriptors(root), _shared()
    loads = {name: in_background(port, name, seconds) for name in (VICTIM, NEIGHBOUR, DUMMY)}
    backs_s = []
    for _ in range(times):
        pid = int(wait_back(port))
        time.sleep(BETWEEN_S)
        ended_s = time.monotonic()
        os.kill(pid, number)
        while int(wait_back(port)) == pid:
            time.sleep(0.01)
        backs_s.append(time.monotonic() - ended_s - stopping_s)
    outcomes: dict[str, Counter[str]] = {}
    for name, (thread, reports) in loads.items():
        thread.join()
        outcomes[name] = reports[0].outcomes
    wait_back(port)
    after = process.memory_mb(root), _descriptors(root), _shared()
    told = ", ".join(f"{name} {dict(found)}" for name, found in outcomes.items())
    over_s = max(backs_s) - load_s
    print(f"{number.name} {times} times: {told}")
    print(
        f"  back after {statistics.median(backs_s):.2f} s, {max(backs_s):.2f} at most"
        f" ({over_s:+.2f} beside its load); memory {before[0]:.0f} and {after[0]:.0f} MB,"
        f" descriptors {before[1]} and {after[1]}, /dev/shm {before[2]} and {after[2]} files",
        flush=True,
    )
    others = set(outcomes[NEIGHBOUR]) | set(outcomes[DUMMY])
    return (
        others == {OK}
        and set(outcomes[VICTIM]) <= {OK, "503"}
        and over_s <= WANTED_BACK_S
        and after[0] - before[0] <= GROWTH_MB
        and after[1:] == before[1:]
    )


def _descriptors(pid: int) -> int:
    """Return how many files the service has open, connections of the load aside."""
    links = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(path.readlink()))
        except OSError:
            continue
    return sum("memfd" in link for link in links)


def _shared() -> int:
    return len(list(Path("/dev/shm").iterdir()))  # noqa: S108  # as the kernel has it


def processor_s(root: int) -> float:
    """Return the processor seconds of the service and of its processes so far."""
    total = 0
    for member in process.tree(root):
        stat = Path(f"/proc/{member.pid}/stat").read_text(encoding="utf-8")
        total += sum(map(int, stat.rpartition(")")[2].split()[11:13]))
    return total * TICK_S


def show_cost(rounds: int, seconds: float) -> bool:
    """Ask the class in a thread and in a process in turn."""
    kinds = ("thread", "process")
    with serving("".join(entry(kind, kind) for kind in kinds)) as running:
        root = running.process.pid
        targets = {
            kind: make_target(
                f"http://127.0.0.1:{running.port}/predict/{kind}",
                ["good", "bad"],
                body=lambda text: json.dumps(text).encode(),
            )
            for kind in kinds
        }
        for connections in (1, 64):
            rows: dict[str, list[tuple[float, float, float]]] = {kind: [] for kind in kinds}
            for number in range(-1, rounds):  # the first warms up
                for kind in kinds if number % 2 else kinds[::-1]:
                    before_s = processor_s(root)
                    report = closed_loop(targets[kind], connections=connections, seconds=seconds)
                    spent_s = processor_s(root) - before_s
                    row = report.per_second, spent_s * 1000 / len(report.answers)
                    if number >= 0:
                        rows[kind].append((*row, report.latency_ms(0.5)))
            for kind, found in rows.items():
                rate, spent_ms, p50_ms = (
                    statistics.median(column) for column in zip(*found, strict=True)
                )
                print(
                    f"{connections} connections, {kind}: {rate:.0f} req/s, {spent_ms:.3f} ms of"
                    f" processor a request, p50 {p50_ms:.2f} ms",
                    flush=True,
                )
            pairs = zip(rows["process"], rows["thread"], strict=True)
            ratios = [one[0] / other[0] for one, other in pairs]
            print(f"  process : thread {statistics.median(ratios):.2f}", flush=True)
    return True


def main() -> None:
    """Show one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kills", "cost"))
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    process.adopt_orphans()
    print(f"load average {os.getloadavg()[0]:.1f}", flush=True)
    if given.what == "kills":
        holds = show_kills(given.times)
    else:
        holds = show_cost(given.rounds, given.seconds)
    sys.exit(0 if holds else 1)


if __name__ == "__main__":
    main()
