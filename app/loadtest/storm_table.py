"""How the figures of storms are printed: a line for each, or JSON."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from app.loadtest.storm import Stage, StormFigures

NAME_WIDTH = 9
COLUMNS = (
    ("offered/s", 10),
    ("capacity/s", 11),
    ("goodput/s", 10),
    ("share", 6),
    ("refused/s", 10),
    ("p95 ms", 8),
    ("Retry-After", 12),
    ("/health ms", 11),
    ("not 200", 8),
    ("no answer", 11),
    ("p50 ms", 8),
    ("after", 8),
    ("late ms", 8),
    ("client CPU", 11),
)


def rows(measured: Iterable[tuple[Stage, StormFigures]]) -> Iterator[str]:
    """Give the lines of a table, each when it has been measured."""
    for number, (stage, figures) in enumerate(measured):
        if number == 0:
            yield _row("storm", [name for name, _ in COLUMNS], "other outcomes")
        name = f"{'kept' if stage.is_kept else 'new'} {stage.factor:g}x"
        yield _row(name, _cells(figures), _others(figures))


def as_dict(stage: Stage, figures: StormFigures) -> dict[str, object]:
    """Return what JSON can hold; a time that there is none of is null."""
    row = asdict(stage) | asdict(figures)
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
    }


def _cells(figures: StormFigures) -> list[str]:
    return [
        f"{figures.offered:.0f}",
        f"{figures.capacity:.0f}",
        f"{figures.goodput:.0f}",
        f"{figures.share:.2f}",
        f"{figures.refused:.0f}",
        _time(figures.refused_p95_ms),
        _retry_after(figures),
        _time(figures.health_worst_ms),
        str(figures.health_other),
        str(figures.health_unanswered),
        _time(figures.p50_before_ms),
        _time(figures.p50_after_ms),
        _time(figures.late_p99_ms),
        f"{figures.cpu_share:.0%}",
    ]


def _retry_after(figures: StormFigures) -> str:
    """Say whether all refusals had it, or how many lacked it."""
    if not figures.refused:
        return "-"
    return f"{figures.refused_bare} without" if figures.refused_bare else "all"


def _time(milliseconds: float) -> str:
    return "-" if math.isnan(milliseconds) else f"{milliseconds:.1f}"


def _others(figures: StormFigures) -> str:
    counts = sorted(figures.others.items())
    return ", ".join(f"{count} x {outcome}" for outcome, count in counts) or "-"


def _row(name: str, cells: Sequence[str], others: str) -> str:
    padded = [f"{cell:>{width}}" for cell, (_, width) in zip(cells, COLUMNS, strict=True)]
    return f"{name:{NAME_WIDTH}}" + "".join(padded) + f"  {others}"
