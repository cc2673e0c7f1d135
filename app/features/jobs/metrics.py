"""What jobs, their workers and their webhooks count."""

from prometheus_client import CollectorRegistry

from app.core.metrics import DURATION_BUCKETS, MetricGroup


class JobMetrics(MetricGroup):
    """Metrics of jobs."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self.jobs = self._counter(
            "jobs_total", "Jobs that finished, each counted by one process.", ["status"]
        )
        self.jobs_queued = self._gauge(
            "jobs_queued",
            "Jobs that wait, those that pause after a failure included.",
            across="max",  # each front end counts the same rows
        )
        self.jobs_oldest_waiting_seconds = self._gauge(
            "jobs_oldest_waiting_seconds",
            "For how long the oldest job that could run has waited.",
            across="max",
        )
        self.jobs_refused = self._counter(
            "jobs_refused_total", "Jobs that were not taken, because their owner had too many."
        )
        self.job_seconds = self._histogram(
            "job_seconds",
            "Time that workers spent on a job that finished.",
            buckets=(*DURATION_BUCKETS, 60, 300, 1_800, 7_200),
        )
        self.job_attempts = self._counter(
            "job_attempts_total",
            "Attempts at jobs that ended, by how: finished, released, failed, let_go or"
            " worker_lost.",
            ["outcome"],
        )
        self.jobs_reaped = self._counter(
            "jobs_reaped_total", "Jobs that were taken from workers that had fallen silent."
        )
        self.bell_failures = self._counter(
            "bell_failures_total", "Times that the broker didn't take word of a new job."
        )
        self.job_items = self._counter(
            "job_items_total", "Documents of jobs, by what became of them.", ["state"]
        )
        self.worker_restarts = self._counter(
            "worker_restarts_total",
            "Times that the process of a worker that runs jobs was replaced: its engine was broken,"
            " or it was killed.",
        )
        self.embedded_restarts = self._counter(
            "embedded_restarts_total",
            "Times that a process which the service runs itself was started again.",
            ["process"],
        )
        self.webhooks = self._counter(
            "webhooks_total",
            "Attempts to deliver a webhook, by outcome: delivered, rejected (another status than"
            " 2xx), timeout, unreachable or refused (not a public address).",
            ["outcome"],
        )
