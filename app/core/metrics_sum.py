"""How the metrics of several processes become those of one service."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

Across = Literal["sum", "max", "min"]
# One process's metrics as JSON: [name, text, type, across, [[sample, labels, value], ...]] each.
Report = list[list[Any]]
Labels = tuple[tuple[str, str], ...]

COMBINE: Mapping[Across, Callable[[float, float], float]] = {
    "sum": operator.add,
    "max": max,
    "min": min,
}
# Of the gauges that libraries declare; others are added up.
OF_LIBRARIES: Mapping[str, Across] = {
    "process_start_time_seconds": "min",
    # The largest of all and the limit of each: their ratio is that of the one with most.
    "process_open_fds": "max",
    "process_max_fds": "min",
    "python_info": "max",
}
NEVER_FALL = ("counter", "histogram", "summary")


class Registry(CollectorRegistry):
    """A registry that knows what its gauges say of several processes together."""

    def __init__(self) -> None:
        super().__init__()
        self.across: dict[str, Across] = dict(OF_LIBRARIES)


def report(registry: CollectorRegistry) -> Report:
    """Return what a process has measured."""
    across = registry.across if isinstance(registry, Registry) else OF_LIBRARIES
    return [
        [
            metric.name,
            metric.documentation,
            metric.type,
            across.get(metric.name, "sum") if metric.type not in NEVER_FALL else "sum",
            [[sample.name, sample.labels, sample.value] for sample in metric.samples],
        ]
        for metric in registry.collect()
    ]


def add_up(reports: Iterable[Report]) -> Report:
    """Return the metrics of several processes as those of one."""
    heads: dict[str, list[Any]] = {}
    values: dict[str, dict[tuple[str, Labels], float]] = {}
    for name, *head, samples in (family for one in reports for family in one):
        across: Across = heads.setdefault(name, head)[-1]
        known = values.setdefault(name, {})
        for sample, labels, value in samples:
            key = sample, tuple(sorted(labels.items()))
            known[key] = COMBINE[across](known[key], value) if key in known else value
    return [
        [name, *head, [[sample, dict(labels), value] for (sample, labels), value in known.items()]]
        for (name, head), known in zip(heads.items(), values.values(), strict=True)
    ]


def never_falling(measured: Report) -> Report:
    """Return what has to be remembered of a process that has ended.

    Without its counts the sum would fall, which Prometheus takes for a restart from zero: it would
    count all that the others have counted once more.
    """
    return [family for family in measured if family[2] in NEVER_FALL]


def render(measured: Report) -> bytes:
    """Write metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Measured(measured))
    return generate_latest(registry)


class _Measured(Collector):
    """Gives a library's registry what was measured elsewhere."""

    def __init__(self, measured: Report) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        """Yield each family."""
        for name, text, kind, _, samples in self._measured:
            metric = Metric(name, text, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, labels, value)
            yield metric
