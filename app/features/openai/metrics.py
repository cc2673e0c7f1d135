"""Metrics of OpenAI's API."""

from prometheus_client import CollectorRegistry

from app.core.metrics import MetricGroup


class OpenAiMetrics(MetricGroup):
    """Metrics of OpenAI's API."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.responses_dropped = self._counter(
            "responses_dropped_total",
            "Responses that weren't kept, or no longer: full, too_large or unavailable.",
            ["reason"],
        )
