"""The metrics that every process has, in one registry; features declare their own."""

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

from app.core.logs import dropped_lines
from app.core.metrics_sum import Across, Registry

PREFIX = "mlapi_"
# From a cached answer to the default deadline, in seconds.
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
COST_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
SHARE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75)
RATE_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class MetricGroup:
    """Metrics of one part of the service, declared in its `__init__`.

    Args:
        registry: the process's; None: one of its own.

    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        # Without this, each counter has a second series that says when it was made.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        self.registry = registry or Registry()

    def _gauge(
        self, name: str, text: str, labels: Sequence[str] = (), *, across: Across = "sum"
    ) -> Gauge:
        """Declare a gauge, and what it says of several front ends together."""
        if isinstance(self.registry, Registry):
            self.registry.across[PREFIX + name] = across
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


class Metrics(MetricGroup):
    """What every process measures. Two apps in one process (tests) each have their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        super().__init__(registry)
        self._dropped_lines = 0
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._declare_batches()
        self._declare_process()
        self._declare_front()
        self._declare_chat()
        self._declare_database()

    def count_dropped_lines(self) -> None:
        """Count the log lines that the process has lost since the last call."""
        dropped = dropped_lines()
        self.log_lines_dropped.inc(max(0, dropped - self._dropped_lines))
        self._dropped_lines = dropped

    def _declare_batches(self) -> None:
        """Declare what batches and their texts count."""
        self.queue_depth = self._gauge("queue_depth", "Texts that wait for a batch.", ["model"])
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "Time that a text waited for its batch.", ["model"]
        )
        self.predicted_wait_seconds = self._histogram(
            "predicted_wait_seconds", "Time to the answer, as admission predicted it.", ["model"]
        )
        self.wait_seconds = self._histogram(
            "wait_seconds", "Time to the answer, as it was.", ["model"]
        )
        self.batch_size = self._histogram(
            "batch_size", "Texts in one engine call.", ["model"], SIZE_BUCKETS
        )
        self.batch_cost = self._histogram(
            "batch_cost_tokens",
            "Tokens of one engine call, padding included.",
            ["model"],
            COST_BUCKETS,
        )
        self.batch_padding = self._histogram(
            "batch_padding_ratio",
            "Share of a call's tokens that is padding.",
            ["model"],
            SHARE_BUCKETS,
        )
        self.engine_seconds = self._histogram(
            "engine_seconds", "Time of one engine call, repeats of failed ones included.", ["model"]
        )
        self.engine_failures = self._counter(
            "engine_failures_total", "Texts on which the engine failed alone.", ["model"]
        )
        self.out_of_memory = self._counter(
            "out_of_memory_total", "Engine calls that lacked memory and were halved.", ["model"]
        )
        self.worker_deaths = self._counter(
            "worker_deaths_total", "Worker threads that died.", ["model"]
        )
        self.heartbeat_age_seconds = self._gauge(
            "worker_heartbeat_age_seconds",
            "Age of the oldest running engine call.",
            ["model"],
            across="max",
        )
        self.refused = self._counter(
            "refused_total",
            "Requests that were refused (overloaded; unsent: the engine's process didn't read them)"
            " or came too late (deadline).",
            ["model", "reason"],
        )
        self.cancelled = self._counter(
            "cancelled_total",
            "Texts and generations whose client left while they were queued or in the engine.",
            ["model", "stage"],
        )
        self.wasted_items = self._counter(
            "wasted_items_total",
            "Texts that the engine ran though their client had left.",
            ["model"],
        )

    def _declare_process(self) -> None:
        """Declare what the process and its models count."""
        self.exceptions = self._counter(
            "exceptions_total", "Exceptions that became an error answer, by class.", ["type"]
        )
        self.descriptor_shortages = self._counter(
            "descriptor_shortages_total",
            "Times that connections began to wait because the process had too many files open.",
        )
        self.body_bytes = self._gauge(
            "body_bytes_in_flight", "Bytes of request bodies in memory, until their requests end."
        )
        self.bodies_refused = self._counter(
            "bodies_refused_total",
            "Bodies that were refused because all of them (all), or their caller's (caller), had"
            " too many bytes together.",
            ["reason"],
        )
        self.log_lines_dropped = self._counter(
            "log_lines_dropped_total",
            "Log lines that were lost: too many waited for standard error, or writing failed.",
        )
        self.spans = self._counter(
            "spans_total",
            "Spans of traces, by what became of them: exported, failed (the collector wasn't"
            " reached, or refused them), dropped (too many waited); none where tracing is off.",
            ["outcome"],
        )
        self.event_loop_lag_seconds = self._gauge(
            "event_loop_lag_seconds",
            "How late the event loop woke up at the last check.",
            across="max",
        )
        self.event_loop_tasks = self._gauge(
            "event_loop_tasks", "Tasks of the event loop at the last check; a leak shows here."
        )
        self.model_load_seconds = self._gauge(
            "model_load_seconds", "Time to load and warm the model.", ["model"], across="max"
        )
        self.model_ready = self._gauge(
            "model_ready",
            "1 while the model serves, in every front end that runs.",
            ["model"],
            across="min",
        )
        self.model_version_ready = self._gauge(
            "model_version_ready",
            "1 while a version of a model is loaded.",
            ["model", "version"],
            across="min",
        )
        self.model_version_share = self._gauge(
            "model_version_share",
            "The share of its model's requests that a version is to get, from 0 to 1.",
            ["model", "version"],
            across="max",
        )
        self.model_version_leases = self._counter(
            "model_version_leases_total",
            "Requests that a version of a model was lent to.",
            ["model", "version"],
        )
        self.model_swaps = self._counter(
            "model_swaps_total",
            "Changes of a model while it serves: load, unload, promote and rollback, and whether"
            " each was done, failed, or was ended by a shutdown.",
            ["model", "action", "outcome"],
        )
        self.model_rollbacks = self._counter(
            "model_rollbacks_total",
            "Versions that were taken back by their model's rule, and by which of its bounds.",
            ["model", "rule"],
        )
        self.shadow_copies = self._counter(
            "shadow_copies_total",
            "Answers copied for shadows: done, failed, or dropped as too many waited (full) or"
            " nothing was idle in time (late).",
            ["model", "outcome"],
        )
        self.on_demand_loads = self._counter(
            "on_demand_loads_total",
            'Loads of models of load = "lazy": loaded, failed, no_room, where models in use took'
            " the memory, or dropped, where it was unloaded before it was there.",
            ["model", "outcome"],
        )
        self.on_demand_unloads = self._counter(
            "on_demand_unloads_total",
            'Models of load = "lazy" that were unloaded: idle, or budget, where another needed the'
            " room.",
            ["model", "reason"],
        )
        self.front_ends = self._gauge("front_ends", "Front ends that run, with FRONT_ENDS.")
        self.front_end_restarts = self._counter(
            "front_end_restarts_total", "Times that a front end ended and was started again."
        )
        self.engine_restarts = self._counter(
            "engine_restarts_total",
            "Times that the process of the models that front ends share ended and was started"
            " again.",
        )
        self.engine_link_losses = self._counter(
            "engine_link_losses_total",
            "Times that a front end lost its connection to the process of the shared models.",
        )
        self.model_processes = self._gauge(
            "model_processes", "Processes of a Python model that can take calls.", ["model"]
        )
        self.model_process_ends = self._counter(
            "model_process_ends_total",
            "Processes of a Python model that ended by themselves (crashed), were ended because a"
            " call took too long (hung), or could not load the class again (not_loaded).",
            ["model", "reason"],
        )

    def _declare_front(self) -> None:
        """Declare what is counted of requests before any route sees them."""
        self.in_flight = self._gauge(
            "in_flight_requests", "Requests that were read and have no answer yet.", ["kind"]
        )
        self.in_flight_limit = self._gauge(
            "in_flight_limit", "Requests for inference from which on more are refused."
        )
        self.front_refused = self._counter(
            "front_refused_total",
            "Requests that were refused before any route saw them, by reason: full (MAX_IN_FLIGHT),"
            " slow (the answer would come too late), late (the event loop was), arriving (too many"
            " bodies were on their way).",
            ["kind", "reason"],
        )
        self.front_left = self._counter(
            "front_left_total",
            "Requests for inference whose client left before any route saw them.",
        )

    def _declare_chat(self) -> None:
        """Declare what generations count."""
        self.generations_active = self._gauge(
            "generations_active", "Generations that run.", ["model"]
        )
        self.generations_waiting = self._gauge(
            "generations_waiting", "Generations that wait for a slot.", ["model"]
        )
        self.generations = self._counter(
            "generations_total",
            "Generations that ended, by how: stop, length, tool_calls, client_left, shutdown,"
            " reader_too_slow, deadline, failed or other.",
            ["model", "end"],
        )
        self.first_token_seconds = self._histogram(
            "time_to_first_token_seconds",
            "From the request to its first token.",
            ["model"],
            (*DURATION_BUCKETS, 60, 120),
        )
        self.inter_token_seconds = self._histogram(
            "inter_token_seconds", "Between two tokens of one generation.", ["model"]
        )
        self.tokens_per_second = self._histogram(
            "tokens_per_second",
            "Tokens a second of one generation, from its first token on.",
            ["model"],
            RATE_BUCKETS,
        )
        self.tokens = self._counter(
            "tokens_total",
            "Tokens of prompts, where the engine told, and of completions.",
            ["model", "kind"],
        )
        self.prefix_cache_tokens = self._counter(
            "prefix_cache_tokens_total",
            "Tokens of prompts that were found in the engine's prefix cache.",
            ["model"],
        )

    def _declare_database(self) -> None:
        """Declare what the SQL database counts."""
        self.database_seconds = self._histogram(
            "database_seconds",
            "Time of one call of the SQL database, its wait for a thread included, by how it ended:"
            " ok, failed, cancelled, or why the database was unavailable.",
            ["outcome"],
        )
        self.database_problem = self._gauge(
            "database_problem",
            "1 while the check of the database, which writes a row, names this reason; /ready says"
            " it too.",
            ["reason"],
            across="max",
        )
