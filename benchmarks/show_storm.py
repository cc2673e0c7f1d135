"""Shows what the service does when far more is asked than it can do; 1 if a promise doesn't hold.

    python -m benchmarks.show_storm [real] [bound] [beside] [bodies] [--record]

real: storms on the default classifier. bound: on the fake engine, whose delay is the bound. beside:
64 connections among 5,000 idle ones and 500 slow uploads, in turn with 64 connections alone.
bodies: 100 uploads of 15 MB with one key that stall, and a caller with another key beside them.
"""

import argparse
import datetime as dt
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from app.loadtest.addresses import find_address, get_request
from app.loadtest.bench import DEADLINE_S
from app.loadtest.storm import Stage, Storm, StormFigures, measure_storms
from app.loadtest.storm_table import rows
from benchmarks import process
from benchmarks.run import HERE, WORK, machine, prepare_model
from benchmarks.show_uploads import show_beside, show_bodies
from benchmarks.storm_service import CONNECTIONS, Say, Show, patient_target, serve

# Fakes are called with eight texts by each of two threads: 320 texts a second.
BOUND_MODELS = """[[models]]
name = "dummy"
engine = "fake"
default = true
required = true
fake = { delay_ms = 50 }
"""
WANTED_KEPT = {2: 0.95, 4: 0.95, 8: 0.95}
WANTED_NEW = {2: 0.90, 4: 0.85, 8: 0.75}
WANTED_BOUND = 0.9
REFUSED_P95_MS = 100.0
# Of one connection alone, whose p50 moves by a tenth on a machine with other work.
RECOVERED = 1.25


def show_real(seconds: float, say: Say) -> bool:
    """Send storms to the default classifier."""
    with serve("storm-real") as made:
        measured = list(_storms(made.port, seconds, say))
    return _all_hold((stage, figures, _wanted(stage)) for stage, figures in measured)


def show_bound(seconds: float, say: Say) -> bool:
    """Send storms where the engine, and not the processor, is the bound."""
    (WORK / "bound.toml").write_text(BOUND_MODELS, encoding="utf-8")
    with serve("storm-bound", MODELS_FILE=str(WORK / "bound.toml")) as made:
        measured = list(_storms(made.port, seconds, say))
    return _all_hold((stage, figures, WANTED_BOUND) for stage, figures in measured)


def _storms(port: int, seconds: float, say: Say) -> Iterator[tuple[Stage, StormFigures]]:
    """Give each storm's figures, and print its line."""
    url = f"http://127.0.0.1:{port}"
    address = find_address(url, may_leave=False)
    storm = Storm(
        target=patient_target(port),
        address=address,
        health=address,
        health_request=get_request(f"{url}/health"),
        connections=CONNECTIONS,
        seconds=seconds,
        patience_s=DEADLINE_S,
    )
    for number, (stage, figures) in enumerate(measure_storms(storm)):
        for line in list(rows([(stage, figures)]))[min(number, 1) :]:
            say(line)
        yield stage, figures


def _wanted(stage: Stage) -> float:
    return (WANTED_KEPT if stage.is_kept else WANTED_NEW)[int(stage.factor)]


def _all_hold(storms: Iterable[tuple[Stage, StormFigures, float]]) -> bool:
    """Judge each, so that each that went wrong is named."""
    return not [stage for stage, figures, wanted in storms if not _holds(stage, figures, wanted)]


def _holds(stage: Stage, figures: StormFigures, wanted: float) -> bool:
    """Say whether a storm went as promised, and on standard error what didn't."""
    promises = {
        f"goodput of {wanted:.2f}": figures.share >= wanted,
        "refusals in time": not figures.refused or figures.refused_p95_ms <= REFUSED_P95_MS,
        "Retry-After": not figures.refused_bare,
        "/health": not figures.health_other and not figures.health_unanswered,
        "recovery": figures.p50_after_ms <= figures.p50_before_ms * RECOVERED,
    }
    broken = [name for name, is_held in promises.items() if not is_held]
    if broken:
        name = f"{'kept' if stage.is_kept else 'new'} {stage.factor:g}x"
        print(f"show: {name}: not held: {', '.join(broken)}", file=sys.stderr)
    return not broken


SHOWS: Mapping[str, Show] = {
    "real": show_real,
    "bound": show_bound,
    "beside": show_beside,
    "bodies": show_bodies,
}


def record(name: str, lines: Sequence[str], *, holds: bool) -> None:
    """Append a show to SHOWS.md."""
    verdict = "holds" if holds else "doesn't hold"
    with (HERE / "SHOWS.md").open("a", encoding="utf-8") as page:
        page.write(f"\n## Storm: {name}, {dt.datetime.now(dt.UTC):%Y-%m-%d}\n\n")
        page.write(f"`python -m benchmarks.show_storm {shlex.join(sys.argv[1:])}`, {machine()}.")
        page.write(f" It {verdict}.\n\n```text\n" + "\n".join(lines) + "\n```\n")


def main() -> int:
    """Run the shows that were asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shows", nargs="*", metavar="SHOW", help=", ".join(SHOWS))
    parser.add_argument("--seconds", type=float, default=10.0, help="of each storm or load")
    parser.add_argument("--record", action="store_true", help="append the figures to SHOWS.md")
    given = parser.parse_args()
    if unknown := set(given.shows) - set(SHOWS):
        parser.error(f"no such show: {', '.join(sorted(unknown))}")
    process.adopt_orphans()
    prepare_model(WORK)
    print(machine(), flush=True)
    failed = []
    for name in given.shows or SHOWS:
        print(f"== {name}", flush=True)
        lines: list[str] = []

        def say(line: str, kept: list[str] = lines) -> None:
            kept.append(line)
            print(line, flush=True)

        holds = SHOWS[name](given.seconds, say)
        if not holds:
            failed.append(name)
            print(f"show: {name} doesn't hold", file=sys.stderr)
        if given.record:
            record(name, lines, holds=holds)
    return 1 if failed else 0


if __name__ == "__main__":
    Path(WORK).mkdir(exist_ok=True)
    sys.exit(main())
