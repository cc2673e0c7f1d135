"""Run the service on a real local Ray: `make ray-check`.

One replica, then two, with one engine thread each: the rate against one process, the processor
time of a request, streams, a client that leaves, and a replica that is killed under load. The exit
status is 1 where an answer is wrong, a stream isn't one, or no replica comes back.
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
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import make_target
from app.loadtest.report import OK
from app.loadtest.texts import TEXTS
from benchmarks.process import Running, free_ports
from scripts.ending import clean_up_on_sigterm
from scripts.ray_local import (
    APPLICATION,
    convert,
    local_ray,
    on_ray,
    processor_s,
    replica_pids,
    served,
)

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

# It waits instead of computing, as for a GPU: what a second replica brings where there is room.
[[models]]
name = "waits"
task = "text-classification"
engine = "fake"
required = true
limits = {{ max_batch = 8 }}
fake = {{ delay_ms = 100 }}

[[models]]
name = "echo"
task = "chat"
engine = "fake"
default = true
required = true
slots = 1
fake = {{ delay_ms = 100 }}
"""
WORDS = 40
MEASURED = ("sentiment", "waits")


@dataclass(slots=True)
class Figures:
    """Of one way to serve, a number for each round."""

    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    spent_s: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """The median of rounds, in good answers a second."""
        return statistics.median(self.rates)

    def line(self) -> str:
        """Say all of it."""
        good = max(1, self.outcomes[OK])
        parts = {role: s * 1000 / good for role, s in self.spent_s.most_common() if s}
        each = ", ".join(f"{role} {ms:.2f}" for role, ms in parts.items())
        failed = sum(self.outcomes.values()) - self.outcomes[OK]
        return (
            f"{self.rate:6.1f}/s  p50 {statistics.median(self.p50_ms):5.0f} ms  {failed} failed of"
            f" {sum(self.outcomes.values())}  {sum(parts.values()):.2f} ms a request: {each}"
        )


def post(url: str, body: dict[str, Any]) -> Any:  # noqa: ANN401  # an open answer
    """Ask, and return the answer, whose body may still come."""
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), head)
    return urllib.request.urlopen(request, timeout=60)


def measure(
    figures: Figures, url: str, model: str, seconds: float, services: Mapping[str, Running]
) -> None:
    """Ask as fast as it answers, and add a round to the figures."""
    target = make_target(f"{url}/predict/{model}", TEXTS)
    closed_loop(target, connections=CONNECTIONS, seconds=seconds / 4)
    before = processor_s(services)
    report = closed_loop(target, connections=CONNECTIONS, seconds=seconds)
    after = processor_s(services)
    figures.rates.append(report.per_second)
    figures.p50_ms.append(report.latency_ms(0.5))
    figures.outcomes.update(report.outcomes)
    figures.spent_s.update({role: s - before.get(role, 0.0) for role, s in after.items()})


def check_streams(url: str) -> Iterator[str]:
    """See that tokens come one by one, and that who leaves ends the generation in its replica."""
    words = " ".join(["word"] * WORDS)
    began_s = time.monotonic()
    with post(f"{url}/chat/stream", {"query": words}) as answer:
        answer.readline()
        first_s = time.monotonic() - began_s
        lines = answer.read().decode().splitlines()
    all_s = time.monotonic() - began_s
    print(f"  stream of {WORDS} tokens of 100 ms: first after {first_s:.2f} s, all {all_s:.2f} s")
    if not json.loads(lines[-1]).get("done") or first_s > all_s / 2:
        yield "the stream doesn't stream"
    answer = post(f"{url}/chat/stream", {"query": words})
    answer.readline()
    answer.close()
    left_s = time.monotonic()
    # The replica has one slot: it is free when the first generation has ended there.
    with post(f"{url}/chat/stream", {"query": "next"}) as second:
        second.readline()
        free_s = time.monotonic() - left_s
    print(f"  a client left; the only slot of the replica gave the next token after {free_s:.2f} s")
    if free_s > WORDS * 0.1 / 2:
        yield "a client that left didn't end its generation"


def check_kill(url: str, model: str, seconds: float) -> Iterator[str]:
    """Kill a replica under load; count what fails, and see that another takes its place."""
    before = replica_pids(model)
    killed_s: list[float] = []

    def kill() -> None:
        os.kill(before[0], signal.SIGKILL)
        killed_s.append(time.monotonic())

    timer = threading.Timer(seconds / 3, kill)
    timer.start()
    report = closed_loop(
        make_target(f"{url}/predict/{model}", TEXTS), connections=CONNECTIONS, seconds=seconds
    )
    timer.join()
    failed = sum(report.outcomes.values()) - report.outcomes[OK]
    slowest_ms = report.latency_ms(1.0)
    print(
        f"  kill -9 of one of {len(before)} replicas of {model}: {failed} failed of"
        f" {sum(report.outcomes.values())} {dict(report.outcomes)}, slowest {slowest_ms:.0f} ms"
    )
    while len(set(replica_pids(model)) - {before[0]}) < len(before):
        if time.monotonic() > killed_s[0] + 120:
            yield "no replica took the place of the killed one"
            return
        time.sleep(0.2)
    print(f"  its successor's process was there {time.monotonic() - killed_s[0]:.1f} s later")


def check_killed_stream(url: str) -> Iterator[str]:
    """Kill the replica of a stream: it ends with a typed line, and the next one is answered."""
    answer = post(f"{url}/chat/stream", {"query": " ".join(["word"] * WORDS)})
    answer.readline()
    for pid in replica_pids("echo"):
        os.kill(pid, signal.SIGKILL)
    last = json.loads(answer.read().decode().splitlines()[-1])
    print(f"  kill -9 under a stream: its last line says {last.get('error', last)}")
    if last.get("error", {}).get("code") != "model_crashed":
        yield f"a stream that was cut ended with {last}"
    began_s = time.monotonic()
    with post(f"{url}/chat", {"query": "again"}) as answer:
        said = json.load(answer)
    print(f"  the next chat was answered {time.monotonic() - began_s:.1f} s later")
    if said["answer"] != "again":
        yield f"after the kill: {said}"


class Check:
    """All that is measured and seen.

    Args:
        folder: for logs.
        seconds: of a measurement.
        rounds: in which the ways take turns.

    """

    def __init__(self, folder: Path, *, seconds: float, rounds: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._rounds = rounds
        self._figures: defaultdict[tuple[str, str], Figures] = defaultdict(Figures)

    def run(self) -> Iterator[str]:
        """Yield what is wrong."""
        (port,) = free_ports(1)
        one_thread = {"RAY_APP": "", "ENGINE_THREADS": "1", "INFERENCE_THREADS": "1"}
        with served("alone", self._folder, **one_thread) as (alone, process):
            for replicas in (1, 2):
                beside = {"RAY_APP": APPLICATION, "RAY_REPLICAS": str(replicas)}
                with (
                    on_ray(replicas, port) as ingress,
                    served("beside", self._folder, **beside) as (front, front_process),
                ):
                    ways = {
                        f"{replicas} on Ray": ingress,
                        f"{replicas} beside Ray": front,
                        f"alone, by {replicas}": alone,
                    }
                    self._measure(ways, {"alone": process, "front": front_process})
                    yield from self._look(replicas, [ingress, front])
        self._compare()

    def _measure(self, ways: Mapping[str, str], services: Mapping[str, Running]) -> None:
        for _ in range(self._rounds):
            for model in MEASURED:
                for way, url in ways.items():
                    measure(self._figures[model, way], url, model, self._seconds, services)
        for (model, way), found in self._figures.items():
            if way in ways:
                print(f"{model:10} {way:14} {found.line()}", flush=True)

    def _look(self, replicas: int, urls: Iterable[str]) -> Iterator[str]:
        for name, url in zip(("the ingress", "the service beside Ray"), urls, strict=True):
            print(f"through {name}, {replicas} of each model:", flush=True)
            with post(f"{url}/predict", {"text": "I love it!"}) as answer:
                said = json.load(answer)
            if said["label"] != "POSITIVE":
                yield f"a wrong answer: {said}"
            if replicas == 1:
                yield from check_streams(url)
                yield from check_killed_stream(url)
            else:
                for model in MEASURED:
                    yield from check_kill(url, model, 3 * self._seconds)

    def _compare(self) -> None:
        for model in MEASURED:
            for way in ("on Ray", "beside Ray"):
                one, two = (self._figures[model, f"{n} {way}"].rate for n in (1, 2))
                print(f"{model}, {way}: two replicas give {two / one:.2f} of one")


def main() -> None:
    """Run Ray, and check."""
    clean_up_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where converted models are")
    parser.add_argument("--converter", type=Path, help="the `app` of an environment with torch")
    parser.add_argument("--seconds", type=float, default=6, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.converter:
        convert(given.converter, given.models)
    with tempfile.TemporaryDirectory(prefix="ray-check-") as name:
        folder = Path(name)
        catalogue = folder / "models.toml"
        catalogue.write_text(MODELS.format(folder=given.models.resolve()), encoding="utf-8")
        settings = {
            "MODELS_FILE": str(catalogue),
            "DATA_DIR": name,
            "FEATURES": "none",
            "LIMITS": "off",
            "LOG_LEVEL": "warning",
        }
        with local_ray(settings):
            checks = Check(folder, seconds=given.seconds, rounds=given.rounds)
            problems = list(checks.run())
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    if problems:
        sys.exit("on Ray:\n" + "\n".join(problems))


if __name__ == "__main__":
    main()
