"""The measurement of `app bench --storm`: far more is asked than the service can do.

Each storm is measured against the capacity of the minute before it, so that a machine that gets
slower meanwhile does so for both.
"""

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import StartupError
from app.loadtest.bare_connection import Address
from app.loadtest.bench import refuse_broken
from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target
from app.loadtest.descriptors import connections_allowed
from app.loadtest.loop import TIMEOUT, UNCONNECTED
from app.loadtest.open_loop import arrivals
from app.loadtest.patient_clients import REFUSED, REFUSED_BARE, Outcome, Plan, run_side_by_side
from app.loadtest.report import OK, Report, percentile

FACTORS = (2.0, 4.0, 8.0)  # times the capacity
CAPACITY_S = 3.0  # at most, and as long as a storm at most
CALM_S = 2.0  # one connection alone, before and after a storm; at most as long as the storm
SETTLE_TRIES = 30  # of a second each, until the service answers again after a storm
HEALTH_EVERY_S = 0.2
HEALTH_PATIENCE_S = 1.0  # a Kubernetes probe's default timeout
HEALTH_CONNECTIONS = 16  # more than can be open at that rate and patience
# Outcomes of a poll that got no answer at all.
UNANSWERED = frozenset({TIMEOUT, UNCONNECTED, "closed", "unsent"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Storm:
    """What is measured, and for how long."""

    target: Target
    address: Address  # of the target
    health: Address
    health_request: bytes
    connections: int  # of the closed loop that measures the capacity
    seconds: float  # of each storm
    patience_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One storm: so many times the capacity, over kept connections or each over a new one."""

    factor: float
    is_kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StormFigures:
    """What one storm did."""

    offered: float  # requests a second that were sent
    capacity: float  # answers a second of the closed loop
    goodput: float  # answers of 200 within the patience, a second
    share: float  # goodput of the capacity
    refused: float  # answers of 503, a second
    refused_p95_ms: float
    refused_bare: int  # those without Retry-After
    others: dict[str, int]  # whatever else became of requests
    health_polls: int
    health_worst_ms: float
    health_other: int  # answers that aren't 200
    health_unanswered: int
    p50_before_ms: float  # of one connection alone
    p50_after_ms: float  # the same, in the second half of that time after the storm
    late_p99_ms: float  # how much later than due the client sent
    cpu_share: float  # of one core, the client's own


STAGES = tuple(Stage(factor=factor, is_kept=kept) for kept in (True, False) for factor in FACTORS)


def measure_storms(storm: Storm) -> Iterator[tuple[Stage, StormFigures]]:
    """Give the figures of each stage.

    Raises:
        StartupError: nothing listens there, not one answer was a 200, or the service doesn't answer
            any more after a storm.

    """
    refuse_broken(closed_loop(storm.target, connections=1, seconds=CALM_S, max_requests=10))
    for stage in STAGES:
        _settle(storm)
        yield stage, measure_stage(storm, stage)


def measure_stage(storm: Storm, stage: Stage) -> StormFigures:
    """Measure the capacity, one connection alone, the storm, and one connection alone again."""
    seconds = min(CAPACITY_S, storm.seconds)
    capacity = closed_loop(storm.target, connections=storm.connections, seconds=seconds).per_second
    if not capacity:
        raise StartupError(f"no answer of 200 with {storm.connections} connections: no capacity")
    calm_s = min(CALM_S, storm.seconds)
    before = closed_loop(storm.target, connections=1, seconds=calm_s)
    asked, polls = run_side_by_side(
        [_clients(storm, stage, capacity), _probes(storm)], seconds=storm.seconds
    )
    after = closed_loop(storm.target, connections=1, seconds=calm_s)
    return summarise_storm(asked, polls.report, capacity=capacity, before=before, after=after)


def summarise_storm(
    asked: Outcome, polls: Report, *, capacity: float, before: Report, after: Report
) -> StormFigures:
    """Return the figures of what was counted."""
    report, outcomes = asked.report, asked.report.outcomes
    seconds = report.seconds
    refused_s = sorted(a.latency_s for a in report.answers if a.outcome in (REFUSED, REFUSED_BARE))
    answered = Counter(a.outcome for a in polls.answers if a.outcome not in UNANSWERED)
    worst_s = max((a.latency_s for a in polls.answers), default=0.0)
    apart = {OK, REFUSED, REFUSED_BARE}
    return StormFigures(
        offered=(len(report.answers) - outcomes["unsent"]) / seconds,
        capacity=capacity,
        goodput=report.per_second,
        share=report.per_second / capacity,
        refused=len(refused_s) / seconds,
        refused_p95_ms=percentile(refused_s, 0.95) * 1000,
        refused_bare=outcomes[REFUSED_BARE],
        others={name: count for name, count in outcomes.items() if name not in apart},
        health_polls=len(polls.answers),
        health_worst_ms=worst_s * 1000,
        health_other=answered.total() - answered[OK],
        health_unanswered=len(polls.answers) - answered.total(),
        p50_before_ms=before.latency_ms(0.5),
        p50_after_ms=_recovered_ms(after),
        late_p99_ms=percentile(sorted(asked.late_s), 0.99) * 1000,
        cpu_share=report.cpu_share,
    )


def _recovered_ms(after: Report) -> float:
    """Return the p50 of the second half: what the service does again when that much has passed."""
    late = [a.latency_s for a in after.good if a.finished_s >= after.seconds / 2]
    return statistics.median(late) * 1000 if late else math.nan


def _clients(storm: Storm, stage: Stage, capacity: float) -> Plan:
    return Plan(
        address=storm.address,
        requests=storm.target.requests,
        due_s=arrivals(stage.factor * capacity, storm.seconds),
        patience_s=storm.patience_s,
        is_kept=stage.is_kept,
        max_connections=connections_allowed(),
    )


def _probes(storm: Storm) -> Plan:
    count = math.ceil(storm.seconds / HEALTH_EVERY_S)
    return Plan(
        address=storm.health,
        requests=[storm.health_request],
        due_s=[number * HEALTH_EVERY_S for number in range(count)],
        patience_s=HEALTH_PATIENCE_S,
        is_kept=False,
        max_connections=HEALTH_CONNECTIONS,
    )


def _settle(storm: Storm) -> None:
    """Wait until a request is answered again, so that no storm measures the one before it."""
    for _ in range(SETTLE_TRIES):
        if closed_loop(storm.target, connections=1, seconds=1.0, max_requests=1).good:
            return
    raise StartupError(f"no answer of 200 in the {SETTLE_TRIES} s after a storm")
