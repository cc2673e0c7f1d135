"""Shows what features cost: a service with all of them, and one with none.

    python -m benchmarks.show_features [--rounds 5]

Both serve the packaged models and start in turn. Said of each: seconds to /ready, threads of the
service, its resident memory, and the whole of its processes, the Valkey and the worker of jobs too.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

import httpx2

from app.settings import Settings
from benchmarks.process import Running, adopt_orphans, free_ports, memory_mb, start, stop, tree

APP = Path(sys.executable).parent / "app"
READY_S = 240.0
SETTLED_S = 3.0  # the worker of jobs starts once the models are loaded
POLL_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one start took."""

    ready_s: float
    threads: float
    resident_mb: float
    processes: float
    whole_mb: float


def measure(features: str, folder: Path, models: Path) -> Cost:
    """Start a service, look at it once it is ready, and end it."""
    (port,) = free_ports(1)
    settings = {"DATA_DIR": folder, "MODEL_CACHE_DIR": models, "PORT": port, "FEATURES": features}
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = kept | {name: str(value) for name, value in settings.items()}
    folder.mkdir(parents=True)
    log = folder / "log"
    running = start([str(APP), "serve"], port=port, env=environment, folder=folder, log=log)
    try:
        ready_s = wait_ready(running)
        time.sleep(SETTLED_S)
        pid = running.process.pid
        status = dict(read_status(pid))
        return Cost(
            ready_s=ready_s,
            threads=int(status["Threads"]),
            resident_mb=int(status["VmRSS"].split()[0]) / 1024,
            processes=len(tree(pid)),
            whole_mb=memory_mb(pid),
        )
    finally:
        stop(running)


def wait_ready(running: Running) -> float:
    """Return the seconds from the start to the first 200 of `/ready`."""
    with httpx2.Client(base_url=f"http://127.0.0.1:{running.port}") as client:
        while running.process.poll() is None and time.monotonic() < running.started_s + READY_S:
            with suppress(httpx2.TransportError):
                if client.get("/ready").status_code == httpx2.codes.OK:
                    return time.monotonic() - running.started_s
            time.sleep(POLL_S)
    sys.exit(f"it never was ready: {running.last_words}")


def read_status(pid: int) -> Iterator[tuple[str, str]]:
    """Give the fields of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        yield name, value.strip()


def medians(costs: list[Cost]) -> Mapping[str, float]:
    """Return the median of each figure."""
    names = [field.name for field in fields(Cost)]
    return {name: statistics.median(getattr(cost, name) for cost in costs) for name in names}


def main() -> None:
    """Start both in turn, and print a table of medians."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    models = Settings().models_dir.absolute()
    costs: dict[str, list[Cost]] = {"all": [], "none": []}
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        measure("none", Path(folder) / "warm", models)  # converts the models where it has to
        for number in range(rounds):
            for features, those in costs.items():
                those.append(measure(features, Path(folder) / f"{features}-{number}", models))
    every, none = medians(costs["all"]), medians(costs["none"])
    print(f"load average {os.getloadavg()[0]:.1f}")
    print("| figure | all | none | ratio |\n| --- | --- | --- | --- |")
    for name, value in every.items():
        print(f"| {name} | {value:.1f} | {none[name]:.1f} | {none[name] / value:.2f} |")


if __name__ == "__main__":
    main()
