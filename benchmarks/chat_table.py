"""Turns what was measured of chat into the tables of RESULTS-CHAT.md."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chat_contest import ChatTurn
from benchmarks.chat_lineup import OURS
from benchmarks.chat_streams import Figures
from benchmarks.table import head, line, number

TEN = 10  # figures below have one decimal


@dataclass(slots=True, kw_only=True)
class ChatRow:
    """A contestant, or the engine alone, and its turns; or why it has none."""

    name: str
    title: str
    engine: str
    version: str = ""
    turns: list[ChatTurn] = field(default_factory=list)
    reason: str = ""

    @property
    def label(self) -> str:
        """What its lines begin with."""
        return f"{self.title} {self.version}".strip()

    def load(self, streams: int) -> Figures:
        """Medians over the rounds at so many streams."""
        return _median([turn.loads[streams] for turn in self.turns])


def _median(found: Sequence[Figures]) -> Figures:
    def of(name: str) -> float:
        return statistics.median(float(getattr(figures, name)) for figures in found)

    others: Counter[str] = Counter()
    for figures in found:
        others.update(figures.others)
    return Figures(
        tokens_per_s=of("tokens_per_s"),
        ttft_p50_ms=of("ttft_p50_ms"),
        ttft_p99_ms=of("ttft_p99_ms"),
        gap_p50_ms=of("gap_p50_ms"),
        gap_p99_ms=of("gap_p99_ms"),
        early_share=of("early_share"),
        cpu_share=of("cpu_share"),
        others=dict(others),
    )


def ratio(ours: ChatRow, row: ChatRow, streams: int) -> float:
    """Return this service's tokens a second by the row's: the median of the rounds' ratios."""
    pairs = zip(ours.turns, row.turns, strict=False)
    found = [
        mine.loads[streams].tokens_per_s / its.loads[streams].tokens_per_s
        for mine, its in pairs
        if its.loads[streams].tokens_per_s
    ]
    return statistics.median(found) if found else math.nan


def speed_table(rows: Sequence[ChatRow], streams: Sequence[int]) -> list[str]:
    """One row for each contestant: tokens a second, memory, start."""
    titles = ["contestant", "engine", *(f"tok/s at {count}" for count in streams)]
    titles += [f"this service / it at {count}" for count in streams]
    titles += ["memory MB", "start s"]
    lines = head(titles)
    ours = next((row for row in rows if row.name == OURS), None)
    for row in rows:
        if not row.turns:
            lines.append(line([row.label, row.engine, row.reason, *["-"] * (len(titles) - 3)]))
            continue
        cells = [row.label, row.engine]
        cells += [_short(row.load(count).tokens_per_s) for count in streams]
        cells += [number(ratio(ours, row, count) if ours else math.nan, 2) for count in streams]
        cells.append(number(statistics.median(turn.memory_mb for turn in row.turns)))
        cells.append(number(statistics.median(turn.start_s for turn in row.turns), 1))
        lines.append(line(cells))
    return lines


def first_token_table(rows: Sequence[ChatRow], streams: Sequence[int]) -> list[str]:
    """Milliseconds from the request to the first token."""
    titles = ["contestant", *(f"p50 / p99 ms at {count}" for count in streams)]
    lines = head(titles)
    for row in rows:
        if row.turns:
            found = [row.load(count) for count in streams]
            lines.append(line([row.title, *(_pair(f.ttft_p50_ms, f.ttft_p99_ms) for f in found)]))
    return lines


def gap_table(rows: Sequence[ChatRow], streams: Sequence[int]) -> list[str]:
    """Milliseconds between one piece of an answer and the next, and what else is worth knowing."""
    titles = ["contestant", *(f"p50 / p99 ms at {count}" for count in streams)]
    titles += ["ended early", "other answers, all rounds", "client CPU, of a core"]
    lines = head(titles)
    for row in rows:
        if row.turns:
            found = [row.load(count) for count in streams]
            cells = [row.title, *(_pair(f.gap_p50_ms, f.gap_p99_ms) for f in found)]
            cells += [_share(max(f.early_share for f in found)), _others(found)]
            cells.append(_share(max(f.cpu_share for f in found)))
            lines.append(line(cells))
    return lines


def first_token_lines(rows: Sequence[ChatRow], prompts: int) -> list[str]:
    """Say what this service adds to the engine's time to the first token."""
    lines = []
    for row in rows:
        found = [turn.first_ms for turn in row.turns if turn.first_ms]
        if found:
            service = statistics.median(mine for mine, _ in found)
            engine = statistics.median(its for _, its in found)
            more = statistics.median(mine - its for mine, its in found)
            lines.append(
                f"- {row.title}: {service:.1f} ms, the engine alone {engine:.1f} ms:"
                f" **{more:+.1f} ms** (medians of {prompts} prompts, asked of both in turn)"
            )
    return lines


def _pair(p50: float, p99: float) -> str:
    return f"{_short(p50)} / {_short(p99)}"


def _short(value: float) -> str:
    return "never" if math.isinf(value) else number(value, 1 if value < TEN else 0)


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _others(found: Sequence[Figures]) -> str:
    others: Counter[str] = Counter()
    for figures in found:
        others.update(figures.others)
    return _listed(others) or "-"


def _listed(others: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {outcome}" for outcome, count in sorted(others.items()))
