"""The measurement that `app bench` makes of a running service, as the project's own benchmark does.

Closed loops at several numbers of connections, in turn and in rounds, so that a machine that gets
slower meanwhile does so for all of them; then an open loop at twice of what it could do.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from app.errors import StartupError
from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target
from app.loadtest.loop import UNCONNECTED, UNTRUSTED
from app.loadtest.open_loop import open_loop
from app.loadtest.report import OK, Report

WARM_UP_S = 1.0
OVERLOAD = 2.0  # times the capacity
DEADLINE_S = 1.0
DEADLINE_HEADER = "X-Request-Timeout-Ms"
# What is wrong when nothing else was seen.
NOTHING_TO_MEASURE = {
    UNCONNECTED: "nobody listens at that address",
    UNTRUSTED: "the server's certificate isn't valid; SSL_CERT_FILE may name its authority",
    "401": "the service wants a key: put a valid one in APP_KEY",
    "403": "the key in APP_KEY may not use that route",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A closed loop has its connections, an open one its rate."""

    connections: int | None = None
    rate: float | None = None  # requests a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Medians over the rounds of one kind of load."""

    per_second: float  # answered with 200, and in time
    p50_ms: float
    p99_ms: float
    others: dict[str, int]  # what else came, over all rounds
    cpu_share: float  # of one core, the client's own


def summarise(reports: Sequence[Report]) -> Figures:
    """Return the medians over rounds."""
    others: dict[str, int] = {}
    for report in reports:
        for outcome, count in report.outcomes.items():
            if outcome != OK:
                others[outcome] = others.get(outcome, 0) + count
    return Figures(
        per_second=statistics.median(report.per_second for report in reports),
        p50_ms=statistics.median(report.latency_ms(0.5) for report in reports),
        p99_ms=statistics.median(report.latency_ms(0.99) for report in reports),
        others=others,
        cpu_share=statistics.median(report.cpu_share for report in reports),
    )


def measure(
    target: Target, *, connections: Sequence[int], seconds: float, rounds: int
) -> Iterator[tuple[Load, Figures]]:
    """Measure a running service; give the figures of each kind of load.

    Raises:
        StartupError: nothing listens there, or not one answer was a 200.

    """
    refuse_broken(closed_loop(target, connections=1, seconds=WARM_UP_S))
    reports: dict[int, list[Report]] = {count: [] for count in connections}
    for _ in range(rounds):
        for count in connections:
            reports[count].append(closed_loop(target, connections=count, seconds=seconds))
    figures = {count: summarise(reports[count]) for count in connections}
    for count, medians in figures.items():
        yield Load(connections=count), medians
    rate = OVERLOAD * max(medians.per_second for medians in figures.values())
    if rate:
        yield Load(rate=rate), _overload(target, rate, seconds, rounds)


def rows(measured: Iterable[tuple[Load, Figures]]) -> Iterator[str]:
    """Give the lines of a table."""
    for number, (load, medians) in enumerate(measured):
        if number == 0:
            yield _row("load", ("req/s", "p50 ms", "p99 ms", "client CPU"), "other answers")
        is_open = load.connections is None
        name = f"open, {load.rate:.0f} req/s" if is_open else f"{load.connections} connections"
        yield _figures_row(name, medians)


def as_dict(load: Load, medians: Figures) -> dict[str, object]:
    """Return what JSON can hold; a latency without answers is null."""
    figures = asdict(medians)
    for name in ("p50_ms", "p99_ms"):
        if math.isnan(figures[name]):
            figures[name] = None
    return asdict(load) | figures


def _overload(target: Target, rate: float, seconds: float, rounds: int) -> Figures:
    """Ask for more than it can do, by clients that leave when their deadline has passed."""
    return summarise(
        [
            open_loop(target, rate=rate, seconds=seconds, timeout_s=lambda _: DEADLINE_S)
            for _ in range(rounds)
        ]
    )


def refuse_broken(report: Report) -> None:
    """Say so at once where there is nothing to measure."""
    if report.good:
        return
    outcomes = ", ".join(report.outcomes) or "no answer"
    if reason := NOTHING_TO_MEASURE.get(outcomes):
        raise StartupError(reason)
    raise StartupError(
        f"nothing there answers with 200 (seen: {outcomes}); is /predict in the URL?"
    )


def _figures_row(name: str, medians: Figures) -> str:
    numbers = (
        f"{medians.per_second:.1f}",
        f"{medians.p50_ms:.1f}",
        f"{medians.p99_ms:.1f}",
        f"{medians.cpu_share:.0%}",
    )
    others = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(medians.others.items()))
    return _row(name, numbers, others or "-")


def _row(name: str, numbers: Sequence[str], others: str) -> str:
    return f"{name:20}" + "".join(f"{number:>12}" for number in numbers) + f"  {others}"
