"""Metrics of the prediction log."""

from prometheus_client import CollectorRegistry

from app.core.metrics import MetricGroup


class PredictionLogMetrics(MetricGroup):
    """Metrics of the prediction log."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.prediction_log_rows = self._counter(
            "prediction_log_rows_total", "Predictions that were written to the log."
        )
        self.prediction_log_dropped = self._counter(
            "prediction_log_dropped_total",
            "Predictions that the log lost: full, shutdown or refused.",
            ["reason"],
        )
        self.prediction_log_waiting = self._gauge(
            "prediction_log_waiting", "Predictions that wait to be written."
        )
        self.prediction_log_seconds = self._histogram(
            "prediction_log_seconds", "Time to write one batch of predictions."
        )
        self.prediction_feedback = self._counter(
            "prediction_feedback_total",
            "Feedback that was given, by what it says: correct, wrong or unjudged.",
            ["verdict"],
        )
        for verdict in ("correct", "wrong", "unjudged"):
            self.prediction_feedback.labels(verdict)
        self.prediction_log_deleted = self._counter(
            "prediction_log_deleted_total", "Predictions that retention deleted."
        )
