"""Holds the services of two source trees against each other under load, in interleaved rounds.

Usage: python -m benchmarks.two_services OTHER_TREE [--rounds 10]. Both run all the time, with the
packaged models and default settings; one is asked at a time. Prints the median of the ratios of
each round (this tree : the other) with the spread of the middle half, of requests a second and of
the service's processor time for a request.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from benchmarks import process
from benchmarks.contest import until_answers
from benchmarks.texts import load_texts

TREE = Path(__file__).parent.parent
# Connections, and requests of a round, which takes some seconds.
REQUESTS = {"classify": (64, 1_600), "chat": (8, 24)}
MAX_S = 120.0
CHAT_TOKENS = 48
WARM_UP = 0.5  # of a round
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One tree's service, as it runs."""

    name: str
    pid: int
    targets: dict[str, Target]

    def processor_s(self) -> float:
        """Return the seconds that its processes have taken so far."""
        ticks = 0
        for pid in (self.pid, *self.front_ends(), *self.engines()):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            user, system = stat.rpartition(")")[2].split()[11:13]
            ticks += int(user) + int(system)
        return ticks * TICK_S

    def memory_mb(self) -> float:
        """Return its memory, of what processes share to each its part."""
        kilobytes = 0
        for pid in (self.pid, *self.front_ends(), *self.engines()):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
            kilobytes += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return kilobytes / 1000

    def front_ends(self) -> list[int]:
        """Return the front ends that `app serve --front-ends` has started."""
        return self._with_option(b"--front-end\0")

    def engines(self) -> list[int]:
        """Return the process of the models that front ends share."""
        return self._with_option(b"--engine-process\0")

    def _with_option(self, option: bytes) -> list[int]:
        return [
            member.pid
            for member in process.tree(self.pid)
            if option in Path(f"/proc/{member.pid}/cmdline").read_bytes()
        ]


def chat_body(text: str) -> bytes:
    """Return the body of a streamed chat of a fixed length."""
    return json.dumps({"query": text, "max_tokens": CHAT_TOKENS, "temperature": 0}).encode()


@contextmanager
def serving(tree: Path, folder: Path, texts: Sequence[str]) -> Iterator[Service]:
    """Start a tree's service and give it once its models are there."""
    (port,) = process.free_ports(1)
    folder.mkdir()
    env = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "DATA_DIR": str(folder / "data"),
        "MODEL_CACHE_DIR": str(folder / "models"),
        "PORT": str(port),
        "LOG_LEVEL": "info",
    }
    command = [sys.executable, "-P", "-m", "app", "serve"]
    running = process.start(command, port=port, env=env, folder=folder, log=folder / "log")
    try:
        url = f"http://127.0.0.1:{port}"
        until_answers(running, lambda: urllib.request.urlopen(f"{url}/ready").close())
        yield Service(
            name=tree.name,
            pid=running.process.pid,
            targets={
                "classify": make_target(f"{url}/predict", texts),
                "chat": make_target(f"{url}/chat/stream", texts[:64], body=chat_body),
            },
        )
    finally:
        process.stop(running)


def one_round(
    service: Service, kind: str, *, share: float = 1.0, requests: int | None = None
) -> tuple[float, float]:
    """Return requests a second, and the service's processor time for a request in milliseconds."""
    before_s = service.processor_s()
    connections, usual = REQUESTS[kind]
    report = closed_loop(
        service.targets[kind],
        connections=connections,
        seconds=MAX_S,
        max_requests=requests or int(usual * share),
    )
    if not report.good:
        sys.exit(f"{service.name}, {kind}: {dict(report.outcomes)}")
    done = len(report.answers)
    return report.per_second, (service.processor_s() - before_s) * 1000 / max(1, done)


def told(ratios: Sequence[float]) -> str:
    """Return the median of ratios, and where the middle half of them lies."""
    first, median, third = statistics.quantiles(ratios, n=4)
    return f"{median:.3f} ({first:.3f} to {third:.3f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    process.adopt_orphans()
    texts = load_texts(512)
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        trees = {"this": TREE, "other": given.other.resolve()}
        services = [
            stack.enter_context(serving(tree, work / name, texts)) for name, tree in trees.items()
        ]
        for kind in ("classify", "chat"):
            for service in services:
                one_round(service, kind, share=WARM_UP)
            rows = []
            for number in range(given.rounds):
                order = services if number % 2 == 0 else services[::-1]
                found = {s.pid: one_round(s, kind) for s in order}
                rows.append([found[s.pid] for s in services])
            for name, place, digits in (("requests a second", 0, 1), ("ms a request", 1, 3)):
                medians = [statistics.median(row[who][place] for row in rows) for who in (0, 1)]
                ratios = [row[0][place] / row[1][place] for row in rows]
                shown = " : ".join(f"{median:.{digits}f}" for median in medians)
                print(f"{kind}: {name} {shown}, ratio {told(ratios)}", flush=True)


if __name__ == "__main__":
    main()
