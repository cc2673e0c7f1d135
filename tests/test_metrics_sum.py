"""The metrics of several processes as those of one."""

import json

from prometheus_client.parser import text_string_to_metric_families

from app.core.metrics import Metrics
from app.core.metrics_sum import Report, add_up, never_falling, render, report
from app.main import installed


def sample(measured: Report, name: str, **labels: str) -> float | None:
    """Read a sample as a scraper does."""
    for family in text_string_to_metric_families(render(measured).decode()):
        for one in family.samples:
            if one.name == name and one.labels == labels:
                return float(one.value)
    return None


def process(*, lag_s: float = 0.0, waiting: int = 0, restarts: int = 0) -> Metrics:
    metrics = Metrics()
    metrics.event_loop_lag_seconds.set(lag_s)
    metrics.queue_depth.labels("a").set(waiting)
    metrics.engine_failures.labels("a").inc(restarts)
    return metrics


def reports(*processes: Metrics) -> list[Report]:
    """What each sends, after its way through JSON."""
    return [json.loads(json.dumps(report(one.registry))) for one in processes]


def test_counters_and_what_waits_are_added_up() -> None:
    both = add_up(reports(process(waiting=2, restarts=3), process(waiting=5, restarts=4)))
    assert sample(both, "mlapi_queue_depth", model="a") == 7
    assert sample(both, "mlapi_engine_failures_total", model="a") == 7


def test_histograms_are_added_up_bucket_by_bucket() -> None:
    first, second = process(), process()
    first.batch_size.labels("a").observe(1)
    second.batch_size.labels("a").observe(3)
    both = add_up(reports(first, second))
    assert sample(both, "mlapi_batch_size_bucket", model="a", le="1.0") == 1
    assert sample(both, "mlapi_batch_size_bucket", model="a", le="4.0") == 2
    assert sample(both, "mlapi_batch_size_sum", model="a") == 4
    assert sample(both, "mlapi_batch_size_count", model="a") == 2


def test_a_lag_is_the_longest_and_a_model_is_ready_where_all_have_it() -> None:
    first, second = process(lag_s=0.5), process(lag_s=0.1)
    first.model_ready.labels("a").set(1)
    second.model_ready.labels("a").set(0)
    both = add_up(reports(first, second))
    assert sample(both, "mlapi_event_loop_lag_seconds") == 0.5
    assert sample(both, "mlapi_model_ready", model="a") == 0


def test_series_that_only_one_process_has_stay_as_they_are() -> None:
    first, second = process(), process()
    first.refused.labels("a", "deadline").inc()
    second.refused.labels("a", "overloaded").inc(2)
    both = add_up(reports(first, second))
    assert sample(both, "mlapi_refused_total", model="a", reason="deadline") == 1
    assert sample(both, "mlapi_refused_total", model="a", reason="overloaded") == 2


def test_counts_outlive_their_process_and_gauges_dont() -> None:
    [ended] = reports(process(waiting=2, restarts=3))
    rest = add_up([never_falling(ended), *reports(process(waiting=1, restarts=1))])
    assert sample(rest, "mlapi_engine_failures_total", model="a") == 4
    assert sample(rest, "mlapi_queue_depth", model="a") == 1


def test_one_process_alone_reads_as_before() -> None:
    metrics = process(waiting=2, restarts=3)
    [alone] = reports(metrics)
    names = {family.name for family in text_string_to_metric_families(render(alone).decode())}
    assert {metric.name for metric in metrics.registry.collect()} == names
    # A counter without samples still declares its type.
    assert b"# TYPE mlapi_exceptions_total counter" in render(alone)


def test_each_gauge_that_measures_time_says_the_longest() -> None:
    # A sum of them would be nonsense: a new gauge has to say so.
    groups = installed().metrics()
    for family in report(groups[0].registry):
        name, _, kind, across, _ = family
        if kind == "gauge" and name.startswith("mlapi_") and name.endswith("_seconds"):
            assert across == "max", name
