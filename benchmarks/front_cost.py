"""What a request costs besides its inference: processor time, against a bare FastAPI route.

Usage: python -m benchmarks.front_cost [--other TREE] [--front-ends 2] [--rounds 7] [--packaged]
[--off DRIFT]. With --off also of this tree without a feature, by the setting that turns it off.
The fake engine answers at once; settings are the default ones, so with log line, row and metrics.
The services of this tree (also with several front ends, which share a process of the models, or
have copies), of another one and of the bare route run all the time; one is asked at a time, over 64
connections. Prints medians, ratios round by round, and memory; with --packaged, of the packaged
models.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.loadtest.connection import make_target
from app.settings import PACKAGED_MODELS_FILE
from benchmarks import process
from benchmarks.contest import until_answers
from benchmarks.texts import load_texts
from benchmarks.two_services import TREE, WARM_UP, Service, one_round, told
from benchmarks.venvs import PeerError

REQUESTS = {"fake": 6_000, "packaged": 1_600}
CATALOG = """
[[models]]
name = "dummy"
task = "text-classification"
engine = "fake"
default = true
labels = ["NEGATIVE", "POSITIVE"]
"""
FRONT_ENDS = "--front-ends"
SHARED, COPIES, WITHOUT = "shared", "copies", "without"
OF_THIS = (("this", WITHOUT), ("this", "other"))
PACKAGED = {"MODELS_FILE": str(PACKAGED_MODELS_FILE)}
BARE = ["uvicorn", "benchmarks.bare:app", "--no-access-log", "--log-level", "error"]


@contextmanager
def serving(
    name: str,
    command: Sequence[str],
    *,
    tree: Path,
    folder: Path,
    texts: Sequence[str],
    settings: Mapping[str, str],
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
        **settings,
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
            count = int(words[words.index(FRONT_ENDS) + 1])
            until_answers(running, lambda: all_ready(url, count, service))
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
    parser.add_argument("--packaged", action="store_true")
    parser.add_argument("--off", metavar="SETTING")
    given = parser.parse_args()
    process.adopt_orphans()
    texts = load_texts(512)
    commands = {"bare": (TREE, [*BARE, "--port", "{port}"]), "this": (TREE, ["app", "serve"])}
    if given.other:
        commands["other"] = (given.other.resolve(), ["app", "serve"])
    if given.off:
        commands[WITHOUT] = (TREE, ["app", "serve"])
    several = [SHARED, COPIES] if given.front_ends else []
    for name in several:
        commands[name] = (TREE, ["app", "serve", FRONT_ENDS, str(given.front_ends)])
    requests = REQUESTS["packaged" if given.packaged else "fake"]
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = PACKAGED | {"MODEL_CACHE_DIR": str(work / "models")} if given.packaged else {}
        services = []
        for name, (tree, command) in commands.items():
            own = {**settings, "SHARE_MODELS": str(name != COPIES).lower()}
            if name == WITHOUT:
                own[given.off] = "off"
            made = serving(name, command, tree=tree, folder=work / name, texts=texts, settings=own)
            services.append(stack.enter_context(made))
        rows: list[dict[str, tuple[float, float]]] = []
        for number in range(given.rounds + 1):
            order = services if number % 2 == 0 else services[::-1]
            share = WARM_UP if number == 0 else 1.0
            row = {s.name: one_round(s, "classify", requests=int(requests * share)) for s in order}
            rows += [row] if number else []
        memory = {service.name: service.memory_mb() for service in services}
    for name in commands:
        rate = statistics.median(row[name][0] for row in rows)
        cost = statistics.median(row[name][1] for row in rows)
        ratio = told([row[name][1] / row["bare"][1] for row in rows])
        print(
            f"{name}: {rate:.0f} requests a second, {cost:.3f} ms each, {ratio} of the bare route,"
            f" {memory[name]:.0f} MB"
        )
    compare(rows)


def compare(rows: Sequence[Mapping[str, tuple[float, float]]]) -> None:
    """Print how services that were asked in the same rounds compare."""
    for name, other in ((SHARED, "this"), (COPIES, "this"), (SHARED, COPIES), *OF_THIS):
        if {name, other} <= rows[0].keys():
            dearer = told([row[name][1] / row[other][1] for row in rows])
            print(f"{name} : {other} in processor time {dearer}")
    if "other" in rows[0]:
        faster = told([row["this"][0] / row["other"][0] for row in rows])
        print(f"this : other in requests a second {faster}")


if __name__ == "__main__":
    main()
