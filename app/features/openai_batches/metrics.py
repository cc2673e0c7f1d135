"""Metrics of files and batches."""

from prometheus_client import CollectorRegistry

from app.core.metrics import MetricGroup


class BatchesMetrics(MetricGroup):
    """Metrics of files and batches."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.batches = self._counter(
            "openai_batches_total",
            "Batches that have ended, by their status: completed, failed, expired or cancelled.",
            ["status"],
        )
        self.lines = self._counter(
            "openai_batch_lines_total",
            "Lines of batches by what became of them: completed, failed (another status than 200),"
            " unrun (cancelled, expired), yielded (stopped for clients, run again) or put_off"
            " (refused for now, run again).",
            ["outcome"],
        )
        self.attempts = self._counter(
            "openai_batch_attempts_total",
            "Turns of batches that ended, by how: done, released, failed or let_go (another process"
            " has the batch).",
            ["outcome"],
        )
        self.uploads = self._counter(
            "openai_uploads_total",
            "Files that were uploaded, by outcome: stored, or the code of the error.",
            ["outcome"],
        )
