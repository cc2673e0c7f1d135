"""A user's class as an engine: its items are prepared and run in batches like texts."""

from collections.abc import Generator, Sequence
from typing import Any, Final

from app.core.model_metrics import ProcessMetrics
from app.engines.items import ProcessCount
from app.engines.python.health import MAX_CHECK_S, HealthCheck
from app.engines.python.process_runner import ProcessRunner
from app.engines.python.runner import Answer, Facts, Item, Runner
from app.engines.stream_slots import StreamSlots

# Items in a call. A method for one item gains nothing from a batch but fewer wake-ups of the loop,
# and the first of a batch waits for the last.
BATCH: Final = 64
ONE_BY_ONE: Final = 8
# Weight of the latest items in the mean cost that admission is given before costs are known.
MEMORY: Final = 0.1


class PythonEngine:
    """Runs items by a runner.

    Args:
        runner: of the class; closed with the engine.
        name: of the model.
        device: that the class was given.
        workers: calls at once.
        streams: answers in pieces at once.
        uses: names of models that the class may call.

    """

    kind = "python"

    def __init__(
        self,
        runner: Runner,
        *,
        name: str,
        device: str,
        workers: int,
        streams: int = 8,
        uses: Sequence[str] = (),
    ) -> None:
        self.device = device
        self.workers = workers
        self.facts: Facts = runner.facts
        self.labels = runner.facts.labels or None
        self.version = runner.facts.version
        self.calls_models = bool(uses)
        self.max_batch = BATCH if runner.facts.takes_batches else ONE_BY_ONE
        if self.calls_models and not runner.facts.takes_batches:
            self.max_batch = 1  # what is called for an item ends when its client leaves
        self._runner = runner
        self._processes = runner if isinstance(runner, ProcessRunner) else None
        self.preparing = self._processes.preparing if self._processes else None
        self.slots = StreamSlots(name, count=streams) if runner.facts.has_stream else None
        self._mean_cost = 1.0
        self._health: HealthCheck | None = None
        if runner.facts.has_check:
            # A process whose check doesn't end is replaced, after `timeout_s`.
            max_check_s = MAX_CHECK_S if self._processes is None else None
            self._health = HealthCheck(runner.check, name=name, max_check_s=max_check_s)

    def estimate(self, items: Sequence[Any]) -> int:
        """Return the mean cost of earlier items, times their number."""
        return round(self._mean_cost * len(items)) or 1

    def encode(self, items: Sequence[Any], /) -> list[Item | Exception]:
        """Validate items by the class's types; one that is wrong has its error in its place."""
        prepared = self._runner.prepare(items)
        for item in prepared:
            if isinstance(item, Item):
                self._mean_cost += MEMORY * (item.cost - self._mean_cost)
        return prepared

    def run(self, batch: Sequence[Item]) -> Sequence[Answer | Exception]:
        """Return the answer to each item, or the exception of one that failed alone."""
        return self._runner.run(batch)

    def stream(self, item: Any, /) -> Generator[bytes]:  # noqa: ANN401  # parsed JSON
        """Yield the pieces of the answer to an item as JSON; each step blocks."""
        return self._runner.stream(item)

    def processes(self) -> ProcessCount | None:
        """Return how many processes are up; None where the class runs in threads."""
        if self._processes is None:
            return None
        return ProcessCount(ready=self._processes.ready, wanted=len(self._processes.processes))

    def retry_after_s(self) -> int:
        """Return in how many seconds a process that has ended may be back."""
        return self._processes.retry_after_s() if self._processes else 1

    def refusal(self) -> None:
        """Return nothing: processes are started again for as long as it takes."""

    def watch(self, metrics: ProcessMetrics) -> None:
        """Have processes and their ends counted."""
        processes = self._processes
        if processes is not None:
            metrics.watch(lambda: processes.ready)
            processes.tell_ends(metrics.ended)

    def problems(self) -> list[str]:
        """Return what the class says of its health."""
        return self._health.problems() if self._health else []

    def close(self) -> None:
        """Release the class."""
        if self._health:
            self._health.close()
        if self.slots:
            self.slots.close()
        self._runner.close()
