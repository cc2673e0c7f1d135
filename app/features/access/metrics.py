"""Metrics of the limiter."""

from prometheus_client import CollectorRegistry

from app.core.metrics import MetricGroup


class AccessMetrics(MetricGroup):
    """Metrics of access."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.limiter_unavailable = self._counter(
            "limiter_unavailable_total",
            "Calls that passed uncounted because the limiter's storage was away or slow.",
        )
