"""Every metric of our own is declared here, in one registry per process."""

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

PREFIX = "mlapi_"
# From a cached answer to the default deadline, in seconds.
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one process. Two apps in one process (tests) each have their own."""

    def __init__(self) -> None:
        # Without this, each counter has a second series that says when it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)

        self.queue_depth = self._gauge("queue_depth", "Calls that wait for an inference thread.")
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "Time that a call waited for an inference thread."
        )
        self.batch_size = self._histogram(
            "batch_size", "Texts in one engine call.", ["model"], SIZE_BUCKETS
        )
        self.engine_seconds = self._histogram(
            "engine_seconds", "Time of one engine call, tokenisation included.", ["model"]
        )
        self.engine_failures = self._counter(
            "engine_failures_total", "Texts on which the engine failed alone.", ["model"]
        )
        self.refused = self._counter(
            "refused_total", "Calls that were refused or gave up.", ["reason"]
        )
        self.exceptions = self._counter(
            "exceptions_total", "Exceptions that became an error answer, by class.", ["type"]
        )
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds", "How late the event loop woke up at the last check."
        )
        self.model_load_seconds = self._gauge(
            "model_load_seconds", "Time to load and warm the model.", ["model"]
        )
        self.model_ready = self._gauge("model_ready", "1 while the model serves.", ["model"])

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(PREFIX + name, text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        return Counter(PREFIX + name, text, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        text: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = DURATION_BUCKETS,
    ) -> Histogram:
        return Histogram(PREFIX + name, text, labels, buckets=buckets, registry=self.registry)
