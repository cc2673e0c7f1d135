"""Metrics of drift."""

from prometheus_client import CollectorRegistry

from app.core.metrics import MetricGroup

OF_A_WINDOW = ("model", "version", "kind")


class DriftMetrics(MetricGroup):
    """Metrics of drift; of several front ends the largest distance of all."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.drift_psi = self._gauge(
            "drift_psi",
            "Population stability index of the last full window against the reference, less what"
            " chance alone makes of it; kind:"
            " label, score, length (tokens), unknown (share of tokens).",
            OF_A_WINDOW,
            across="max",
        )
        self.drift_ks = self._gauge(
            "drift_ks",
            "Kolmogorov-Smirnov statistic of the last full window against the reference.",
            OF_A_WINDOW,
            across="max",
        )
        self.drift_windows = self._counter(
            "drift_windows_total",
            "Windows that were compared with their reference.",
            ["model"],
        )
        self.drift_dropped = self._counter(
            "drift_dropped_total", "Answers that weren't counted: they came too quickly."
        )
        self.drift_store_failures = self._counter(
            "drift_store_failures_total",
            "Times that references couldn't be read from SQL or written there.",
        )
