"""The metrics of one model, with its label set."""

from collections.abc import Callable, Sequence

from app.core.metrics import Metrics

REFUSALS = ("overloaded", "deadline")


class ModelMetrics:
    """The metrics of one model; label look-ups are done once, not for every text."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._name = name
        self._metrics = metrics
        self._queue_wait = metrics.queue_wait_seconds.labels(name)
        self._predicted = metrics.predicted_wait_seconds.labels(name)
        self._wait = metrics.wait_seconds.labels(name)
        self._size = metrics.batch_size.labels(name)
        self._cost = metrics.batch_cost.labels(name)
        self._padding = metrics.batch_padding.labels(name)
        self._seconds = metrics.engine_seconds.labels(name)
        self._wasted = metrics.wasted_items.labels(name)
        # Created now: `increase`, and so alerts, wouldn't see the event that creates a series.
        for counter in (metrics.engine_failures, metrics.out_of_memory, metrics.worker_deaths):
            counter.labels(name)
        for reason in REFUSALS:
            metrics.refused.labels(name, reason)

    def watch_queue(self, depth: Callable[[], int]) -> None:
        """Ask for the number of texts that wait at each scrape, instead of noting each change."""
        self._metrics.queue_depth.labels(self._name).set_function(depth)

    def answered(
        self, *, predicted_s: float, seconds: float, exemplar: dict[str, str] | None = None
    ) -> None:
        """One request has its answer; `exemplar` names its trace."""
        self._predicted.observe(predicted_s)
        self._wait.observe(seconds, exemplar)

    def batch(self, *, waits_s: Sequence[float], cost: int, tokens: int, seconds: float) -> None:
        """One batch has run."""
        self._size.observe(len(waits_s))
        self._cost.observe(cost)
        self._padding.observe(1 - tokens / cost)
        self._seconds.observe(seconds)
        for wait_s in waits_s:
            self._queue_wait.observe(wait_s)

    def refused(self, reason: str) -> None:
        """One request was refused, or came too late."""
        self._metrics.refused.labels(self._name, reason).inc()

    def cancelled(self, stage: str, texts: int) -> None:
        """Count texts whose client left; those in the engine run in vain."""
        if texts:
            self._metrics.cancelled.labels(self._name, stage).inc(texts)
        if stage == "engine":
            self._wasted.inc(texts)

    def out_of_memory(self) -> None:
        """One call lacked memory."""
        self._metrics.out_of_memory.labels(self._name).inc()

    def worker_died(self) -> None:
        """One worker thread died."""
        self._metrics.worker_deaths.labels(self._name).inc()


class GenerationMetrics:
    """The metrics of one chat model; label look-ups are done once, not for every token."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._name = name
        self._metrics = metrics
        self._active = metrics.generations_active.labels(name)
        self._waiting = metrics.generations_waiting.labels(name)
        self._first_token = metrics.first_token_seconds.labels(name)
        self._inter_token = metrics.inter_token_seconds.labels(name)
        # As above: alerts wouldn't see the event that creates a series.
        metrics.generations.labels(name, "failed")
        for reason in REFUSALS:
            metrics.refused.labels(name, reason)

    def active(self, generations: int) -> None:
        """Set how many generations run now."""
        self._active.set(generations)

    def waiting(self, generations: int) -> None:
        """Set how many generations wait for a slot now."""
        self._waiting.set(generations)

    def first_token(self, seconds: float, exemplar: dict[str, str] | None = None) -> None:
        """Note the first token of a generation; `exemplar` names its trace."""
        self._first_token.observe(seconds, exemplar)

    def next_token(self, seconds: float) -> None:
        """Note another token of a generation, and the time since the last one."""
        self._inter_token.observe(seconds)

    def refused(self, reason: str) -> None:
        """One request was refused, or came too late."""
        self._metrics.refused.labels(self._name, reason).inc()

    def cancelled(self, stage: str) -> None:
        """One client left, while its generation was queued or in the engine."""
        self._metrics.cancelled.labels(self._name, stage).inc()

    def ended(self, end: str) -> None:
        """One generation has ended; `end` says how."""
        self._metrics.generations.labels(self._name, end).inc()

    def spent(self, *, prompt: int, completion: int, cached: int, seconds: float) -> None:
        """Count tokens of one generation; `seconds` are those from its first token to its last."""
        self._metrics.tokens.labels(self._name, "prompt").inc(prompt)
        self._metrics.tokens.labels(self._name, "completion").inc(completion)
        self._metrics.prefix_cache_tokens.labels(self._name).inc(cached)
        if seconds > 0:
            self._metrics.tokens_per_second.labels(self._name).observe((completion - 1) / seconds)


PROCESS_ENDS = ("crashed", "hung", "not_loaded")


class ProcessMetrics:
    """The metrics of a model that runs in processes of its own."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._name = name
        self._metrics = metrics
        for reason in PROCESS_ENDS:  # as above
            metrics.model_process_ends.labels(name, reason)

    def watch(self, ready: Callable[[], int]) -> None:
        """Ask for the number of processes that can take calls at each scrape."""
        self._metrics.model_processes.labels(self._name).set_function(ready)

    def ended(self, reason: str) -> None:
        """One process ended, or could not be loaded again."""
        self._metrics.model_process_ends.labels(self._name, reason).inc()
