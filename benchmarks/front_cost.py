"""What a request costs besides its inference: processor time, against a bare FastAPI route.

Usage: python -m benchmarks.front_cost [--other TREE] [--front-ends 2] [--rounds 7]. The fake engine
answers at once; settings are the default ones, so with log line, row and metrics. The services of
this tree (also with several front ends), of another one and of the bare route run all the time; one
is asked at a time, over 64 connections. Prints medians, and the ratios to the bare route round by
round.
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
from pathlib import Path

from app.loadtest.connection import make_target
from benchmarks import process
from benchmarks.contest import until_answers
from benchmarks.texts import load_texts
from benchmarks.two_services import TREE, WARM_UP, Service, one_round, told
from benchmarks.venvs import PeerError

REQUESTS = 6_000
CATALOG = """
[[models]]
name = "dummy"
task = "text-classification"
engine = "fake"
default = true
labels = ["NEGATIVE", "POSITIVE"]
"""
FRONT_ENDS = "--front-ends"
BARE = ["uvicorn", "benchmarks.bare:app", "--no-access-log", "--log-level", "error"]


@contextmanager
def serving(
    name: str, command: Sequence[str], *, tree: Path, folder: Path, texts: Sequence[str]
) -> Iterator[Service]:
    """Start a service and give it once it answers."""
    (port,) = process.free_ports(1)
    folder.mkdir()
    (folder / "models.toml").write_text(CATALOG, encoding="utf-8")
    env = {
        **os.environ,
        "PYTHONPATH": str(tree),
        "DATA_DIR": str(folder / "data"),
        "MODELS_FILE": str(folder / "models.toml"),
        "PORT": str(port),
    }
    words = [word.format(port=port) for word in command]
    running = process.start(
        [sys.executable, "-P", "-m", *words], port=port, env=env, folder=folder, log=folder / "log"
    )
    try:
        url = f"http://127.0.0.1:{port}"
        path = "/ready" if "app" in words else "/openapi.json"
        until_answers(running, lambda: urllib.request.urlopen(url + path).close())
        target = make_target(f"{url}/predict", texts)
        service = Service(name=name, pid=running.process.pid, targets={"classify": target})
        if FRONT_ENDS in words:
            until_answers(running, lambda: all_ready(url, int(words[-1]), service))
        yield service
    finally:
        process.stop(running)


def all_ready(url: str, front_ends: int, service: Service) -> None:
    """Raise unless all front ends of a service are ready."""
    with urllib.request.urlopen(f"{url}/ready") as answer:
        degraded = json.load(answer)["degraded"]
    if degraded or len(service.front_ends()) != front_ends:
        raise PeerError(f"not all front ends are ready: {degraded}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", type=Path)
    parser.add_argument(FRONT_ENDS, type=int)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    process.adopt_orphans()
    texts = load_texts(512)
    commands = {"bare": (TREE, [*BARE, "--port", "{port}"]), "this": (TREE, ["app", "serve"])}
    if given.other:
        commands["other"] = (given.other.resolve(), ["app", "serve"])
    if given.front_ends:
        commands["several"] = (TREE, ["app", "serve", FRONT_ENDS, str(given.front_ends)])
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        services = [
            stack.enter_context(serving(name, command, tree=tree, folder=work / name, texts=texts))
            for name, (tree, command) in commands.items()
        ]
        rows: list[dict[str, tuple[float, float]]] = []
        for number in range(given.rounds + 1):
            order = services if number % 2 == 0 else services[::-1]
            share = WARM_UP if number == 0 else 1.0
            row = {s.name: one_round(s, "classify", requests=int(REQUESTS * share)) for s in order}
            rows += [row] if number else []
    for name in commands:
        rate = statistics.median(row[name][0] for row in rows)
        cost = statistics.median(row[name][1] for row in rows)
        ratio = told([row[name][1] / row["bare"][1] for row in rows])
        print(
            f"{name}: {rate:.0f} requests a second, {cost:.3f} ms each, {ratio} of the bare route"
        )
    if given.front_ends:
        dearer = told([row["several"][1] / row["this"][1] for row in rows])
        print(f"{given.front_ends} front ends : one process in processor time {dearer}")
    if given.other:
        faster = told([row["this"][0] / row["other"][0] for row in rows])
        print(f"this : other in requests a second {faster}")


if __name__ == "__main__":
    main()
