"""Runs the service on a real local Ray: replicas of a model, streams, a client that leaves, kills.

    python -m benchmarks.show_ray --models FOLDER [--seconds 10]

FOLDER has been made by `app models bake`. Prints figures; the exit status is 1 where an answer is
wrong, a stream isn't one, or the service doesn't come back after a replica was killed.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import ray
from ray import serve

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import make_target
from app.main import load_settings
from benchmarks.process import free_ports
from benchmarks.texts import load_texts

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "deploy" / "ray"
CONNECTIONS = 32
MODELS = """
[[models]]
name = "sentiment"
task = "text-classification"
source = "file:{folder}/sentiment"
engine = "openvino"
default = true
required = true
labels = ["NEGATIVE", "POSITIVE"]

[[models]]
name = "echo"
task = "chat"
engine = "fake"
default = true
required = true
fake = {{ delay_ms = 100 }}
"""
WORDS = 30


def post(url: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  # an open answer
    """Ask, and return the answer, whose body may still come."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return urllib.request.urlopen(request, timeout=60)


def metric(url: str, series: str) -> float:
    """Return a number of /metrics; 0 where there is no such series."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next((float(line.split()[-1]) for line in lines if line.startswith(series)), 0.0)


@contextmanager
def running(replicas: int, port: int) -> Iterator[str]:
    """Serve with so many replicas of the model; give the address."""
    build = import_module("service").build  # reads the environment
    serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": 30})
    serve.run(build(load_settings(), replicas=replicas), blocking=False)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()


def replica_pids(name: str) -> list[int]:
    """Return the processes of a deployment's replicas."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                title = (folder / "cmdline").read_bytes()
            except OSError:  # it has just ended
                continue
            if title.startswith(f"ray::ServeReplica:default:{name}".encode()):
                found.append(int(folder.name))
    return found


def load(url: str, seconds: float) -> tuple[float, Counter[str]]:
    """Ask /predict as fast as it answers; return the good answers a second, and all outcomes."""
    target = make_target(f"{url}/predict", load_texts())
    report = closed_loop(target, connections=CONNECTIONS, seconds=seconds)
    return report.per_second, Counter({str(k): v for k, v in report.outcomes.items()})


def check_streams(url: str) -> Iterator[str]:
    """See that tokens come one by one, and that a client that leaves ends its generation."""
    words = " ".join(["word"] * WORDS)
    began_s = time.monotonic()
    with post(f"{url}/chat/stream", {"query": words}) as answer:
        answer.readline()
        first_s = time.monotonic() - began_s
        lines = answer.read().decode().splitlines()
    all_s = time.monotonic() - began_s
    print(f"stream of {len(lines)} tokens: the first after {first_s:.2f} s, all after {all_s:.2f}")
    if not json.loads(lines[-1]).get("done") or first_s > all_s / 2:
        yield "the stream doesn't stream"
    left = 'mlapi_generations_total{end="client_left"'
    before = metric(url, left)
    answer = post(f"{url}/chat/stream", {"query": words})
    answer.readline()
    answer.close()
    until_s = time.monotonic() + WORDS * 0.1
    while metric(url, left) == before:
        if time.monotonic() > until_s:
            yield "a client that left didn't end its generation"
            return
        time.sleep(0.05)
    print("a client that left ended its generation")


def check_kill(url: str, seconds: float) -> Iterator[str]:
    """Kill a replica under load; count what fails, and see that another takes its place."""
    before = replica_pids("sentiment")
    timer = threading.Timer(seconds / 3, os.kill, (before[0], signal.SIGKILL))
    timer.start()
    rate, outcomes = load(url, seconds)
    timer.join()
    print(f"kill -9 of one of {len(before)} replicas: {rate:.0f}/s, {dict(outcomes)}")
    until_s = time.monotonic() + 60
    while len(set(replica_pids("sentiment")) - {before[0]}) < len(before):
        if time.monotonic() > until_s:
            yield "no replica took the place of the killed one"
            return
        time.sleep(0.2)


def check(seconds: float) -> Iterator[str]:
    """Make all checks."""
    (port,) = free_ports(1)
    rates = {}
    for replicas in (1, 2):
        with running(replicas, port) as url:
            with post(f"{url}/predict", {"text": "I love it!"}) as answer:
                said = json.load(answer)
            if said["label"] != "POSITIVE":
                yield f"a wrong answer: {said}"
            load(url, seconds / 3)
            rates[replicas], outcomes = load(url, seconds)
            print(f"{replicas} replicas: {rates[replicas]:.0f}/s, {dict(outcomes)}", flush=True)
            if replicas > 1:
                yield from check_streams(url)
                yield from check_kill(url, seconds)
    print(f"two replicas of one: {rates[2] / rates[1]:.2f}")


def main() -> None:
    """Run Ray, and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ray-check-") as name:
        catalogue = Path(name) / "models.toml"
        catalogue.write_text(MODELS.format(folder=given.models.resolve()), encoding="utf-8")
        os.environ |= {
            "MODELS_FILE": str(catalogue),
            "DATA_DIR": name,
            "FEATURES": "none",
            "PYTHONPATH": f"{ROOT}:{FOLDER}",
            "LOG_LEVEL": "warning",
            "RAY_SERVE_ENABLE_TASK_EVENTS": "0",
        }
        sys.path.insert(0, str(FOLDER))
        ray.init(num_cpus=4, include_dashboard=False, logging_level="warning", log_to_driver=False)
        try:
            said = list(check(given.seconds))
        finally:
            ray.shutdown()
    if said:
        sys.exit("on Ray:\n" + "\n".join(said))


if __name__ == "__main__":
    main()
