"""Shows what a user writes to serve a model of their own, and how quickly it is served.

Usage: python -m benchmarks.show_any_model [sklearn torch] [--rounds 3] [--seconds 4]
       [--only thread,process,litserve,bentoml,mlserver] [--lines]

The same scikit-learn model and the same network of torch's are served by this service (the class
in a thread, and in a process of its own), LitServe, BentoML and MLServer. In a round each is
started, asked for the right answers, warmed up and measured at each number of connections; then
comes the next round, so that a machine that slows down slows down all of them.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import make_target
from app.loadtest.report import OK, Report
from benchmarks import process
from benchmarks.any_model import Server, items_of, lines_of, servers_of, write_entry
from benchmarks.contest import post, until_answers
from benchmarks.lineup import KEPT
from benchmarks.venvs import PeerError, bin_folder, prepare, version

CONNECTIONS: Final = (1, 8, 64)
WARM_UP_S: Final = 2.0
WANTED: Final = 2.0
Turn = dict[int, Report]


@contextmanager
def running(server: Server, work: Path) -> Iterator[process.Running]:
    """Start a server; end it and all that it started when the block does."""
    ports = process.free_ports(3)
    filled = {
        "bin": str(bin_folder(server.venv)),
        "work": str(work),
        **dict(zip(("port", "port2", "port3"), map(str, ports), strict=True)),
    }
    env = {
        **{name: os.environ[name] for name in KEPT if name in os.environ},
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **{name: value.format(**filled) for name, value in server.env.items()},
    }
    made = process.start(
        [part.format(**filled) for part in server.command],
        port=ports[0],
        env=env,
        folder=server.files[0].parent,
        log=work / f"{server.name}.log",
    )
    try:
        yield made
    finally:
        process.stop(made)


def ask(server: Server, port: int, item: str) -> Any:  # noqa: ANN401  # parsed JSON
    """Ask for one item.

    Raises:
        OSError, HTTPException: nobody listens, or they speak no HTTP yet.
        PeerError: the answer isn't a 200.

    """
    return server.answer(post(port, server.path, server.body(item)))


def take_turn(
    server: Server, items: Sequence[str], expected: list[Any], *, work: Path, seconds: float
) -> Turn:
    """Measure one server once; the first one's answers are what the others are to say.

    Raises:
        PeerError: it can't take part, and why.

    """
    with running(server, work) as made:
        until_answers(made, lambda: ask(server, made.port, items[0]))
        answers = [ask(server, made.port, item) for item in items]
        expected += answers if not expected else []
        if answers != expected:
            raise PeerError(f"answers {answers} where {expected} is right")
        url = f"http://127.0.0.1:{made.port}{server.path}"
        target = make_target(url, items, body=server.body)
        closed_loop(target, connections=max(CONNECTIONS), seconds=WARM_UP_S)
        return {
            count: closed_loop(target, connections=count, seconds=seconds) for count in CONNECTIONS
        }


def measure(example: str, servers: Sequence[Server], *, rounds: int, seconds: float) -> None:
    """Take turns, and print the medians."""
    turns: dict[str, list[Turn]] = defaultdict(list)
    refused: dict[str, str] = {}
    expected: list[Any] = []
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        for isolation in ("thread", "process"):
            write_entry(work, example, isolation)
        for number in range(rounds):
            for server in servers:
                if server.name in refused:
                    continue
                try:
                    turn = take_turn(
                        server, items_of(example), expected, work=work, seconds=seconds
                    )
                except PeerError as failure:
                    refused[server.name] = str(failure)
                    print(f"{server.name}: {failure}", flush=True)
                    continue
                turns[server.name].append(turn)
                rates = ", ".join(f"{c}: {turn[c].per_second:,.0f}" for c in CONNECTIONS)
                print(f"{example}, round {number + 1}, {server.name}: {rates}", flush=True)
    print_table(example, servers, turns)


def print_table(example: str, servers: Sequence[Server], turns: dict[str, list[Turn]]) -> None:
    """Print requests a second, and how often this service's are those of the others."""
    print(f"\n{example}\n")
    rates = [f"{count} connections" for count in CONNECTIONS]
    heads = ["server", "lines", *rates, "p50, p99 at 64, ms", "errors", "thread, process / it"]
    print(f"| {' | '.join(heads)} |")
    print(f"| {' | '.join(['---'] * len(heads))} |")
    for server in servers:
        lines = sum(map(lines_of, server.files))
        if not (mine := turns[server.name]):
            print(f"| {server.name} | {lines} | {'not measured | ' * len(CONNECTIONS)} | | |")
            continue
        rates = [
            f"{statistics.median(turn[count].per_second for turn in mine):,.0f}"
            for count in CONNECTIONS
        ]
        most = max(CONNECTIONS)
        times = [
            f"{statistics.median(turn[most].latency_ms(share) for turn in mine):.1f}"
            for share in (0.5, 0.99)
        ]
        errors = sum(
            count
            for turn in mine
            for report in turn.values()
            for outcome, count in report.outcomes.items()
            if outcome != OK
        )
        ours = [turns[name] for name in (s.name for s in servers[:2]) if turns[name]]
        ratios = [_ratio(turn, mine, most) for turn in ours]
        print(
            f"| {server.name} {version(server.venv, server.package)} | {lines} |"
            f" {' | '.join(rates)} | {', '.join(times)} | {errors} | {', '.join(ratios)} |"
        )


def _ratio(ours: Sequence[Turn], theirs: Sequence[Turn], count: int) -> str:
    """Return the median over rounds of one's requests a second by the other's."""
    pairs = zip(ours, theirs, strict=False)
    ratios = [a[count].per_second / max(b[count].per_second, 1e-9) for a, b in pairs]
    return f"{statistics.median(ratios):.2f}"


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("examples", nargs="*", default=["sklearn", "torch"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--only", default="", help="parts of servers' names, with commas")
    parser.add_argument("--lines", action="store_true", help="count lines, and measure nothing")
    arguments = parser.parse_args()
    names = [name.lower() for name in arguments.only.split(",") if name]
    process.adopt_orphans()
    for example in arguments.examples:
        servers = [
            server
            for server in servers_of(example)
            if not names or any(name in server.name.lower() for name in names)
        ]
        if arguments.lines:
            print_table(example, servers, defaultdict(list))
            continue
        for server in servers:
            if server.venv:
                prepare(server.venv)
        measure(example, servers, rounds=arguments.rounds, seconds=arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
