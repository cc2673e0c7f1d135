"""Turns what was measured into the tables of RESULTS.md."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from app.loadtest.bench import Figures, summarise
from benchmarks.contest import Turn
from benchmarks.lineup import FLOAT32, Contestant

OURS = {FLOAT32: "torch"}  # with whom a row is compared: the same engine; else `auto`


@dataclass(slots=True, kw_only=True)
class Row:
    """A contestant and its turns, or why it has none."""

    contestant: Contestant
    version: str = ""
    turns: list[Turn] = field(default_factory=list)
    reason: str = ""

    def closed(self, connections: int) -> Figures:
        """Medians over the rounds at so many connections."""
        return summarise([turn.closed[connections] for turn in self.turns])

    def overload(self) -> Figures | None:
        """Medians over the rounds at twice the capacity."""
        reports = [turn.overload for turn in self.turns if turn.overload]
        return summarise(reports) if reports else None


@dataclass(slots=True, kw_only=True)
class LimitRow:
    """An engine alone."""

    engine: str
    per_second: list[float] = field(default_factory=list)
    chosen: str = ""
    memory_mb: float = 0.0
    reason: str = ""

    @property
    def median(self) -> float:
        """Texts a second."""
        return statistics.median(self.per_second) if self.per_second else math.nan


def number(value: float, digits: int = 0) -> str:
    """Return a cell's number; a dash for what is none."""
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def head(titles: Sequence[str]) -> list[str]:
    """Return the first two lines of a table; the first column is text."""
    return [line(titles), line(["---"] + ["---:"] * (len(titles) - 1))]


def main_table(
    rows: Sequence[Row], limits: Mapping[str, LimitRow], connections: Sequence[int]
) -> list[str]:
    """One row for each contestant; the ratios are at the highest number of connections."""
    most = max(connections)
    titles = [
        "contestant",
        "engine",
        *(f"req/s at {count}" for count in connections),
        f"p50 ms at {most}",
        f"p99 ms at {most}",
        "goodput at 2x",
        "memory MB",
        "start s",
        "of the limit",
        "this service / it",
    ]
    lines = head(titles)
    for limit in limits.values():
        lines.append(_limit_line(limit, len(titles), len(connections)))
    best = {row.contestant.name: row.closed(most).per_second for row in rows if row.turns}
    for row in rows:
        lines.append(_contestant_line(row, limits, connections, best))
    return lines


def _limit_line(limit: LimitRow, width: int, loads: int) -> str:
    name = f"the engine alone ({limit.chosen})" if limit.chosen else "the engine alone"
    if limit.reason:
        return line([name, limit.engine, limit.reason, *["-"] * (width - 3)])
    cells = [name, limit.engine, *["-"] * (loads - 1), number(limit.median)]
    cells += ["-", "-", "-", number(limit.memory_mb), "-", "1.00", "-"]
    return line(cells)


def _contestant_line(
    row: Row,
    limits: Mapping[str, LimitRow],
    connections: Sequence[int],
    best: Mapping[str, float],
) -> str:
    contestant = row.contestant
    title = f"{contestant.title} {row.version}".strip()
    if not row.turns:
        width = len(connections) + 7
        return line([title, contestant.engine, row.reason, *["-"] * (width - 1)])
    closed = [row.closed(count) for count in connections]
    top, late = closed[-1], row.overload()
    limit = limits.get(contestant.engine)
    ours = best.get(OURS.get(contestant.engine, "auto"), math.nan)
    return line(
        [
            title,
            contestant.engine,
            *(number(found.per_second) for found in closed),
            number(top.p50_ms),
            number(top.p99_ms),
            number(late.per_second if late else math.nan),
            number(statistics.median(turn.memory_mb for turn in row.turns)),
            number(statistics.median(turn.start_s for turn in row.turns), 1),
            number(top.per_second / limit.median if limit else math.nan, 2),
            number(ours / top.per_second if top.per_second else math.nan, 2),
        ]
    )


def detail_table(rows: Sequence[Row], connections: Sequence[int]) -> list[str]:
    """Latencies at each number of connections, and what clients got under overload."""
    titles = ["contestant"]
    titles += [f"p50 / p99 ms at {count}" for count in connections]
    titles += ["p50 / p99 ms at 2x", "other answers at 2x, all rounds", "client CPU, of a core"]
    lines = head(titles)
    for row in rows:
        if row.turns:
            found = [row.closed(count) for count in connections]
            late = row.overload()
            cells = [row.contestant.title, *map(_latencies, found)]
            cells += [_latencies(late) if late else "-", _others(late)]
            cells.append(f"{max(figures.cpu_share for figures in found):.0%}")
            lines.append(line(cells))
    return lines


def _latencies(found: Figures) -> str:
    return f"{number(found.p50_ms)} / {number(found.p99_ms)}"


def _others(found: Figures | None) -> str:
    if found is None or not found.others:
        return "-"
    return ", ".join(f"{count} x {outcome}" for outcome, count in sorted(found.others.items()))
