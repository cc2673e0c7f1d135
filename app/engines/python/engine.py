"""A user's class as an engine: its items are prepared and run in batches like texts."""

from collections.abc import Sequence
from typing import Any, Final

from app.engines.python.health import HealthCheck
from app.engines.python.runner import Answer, Facts, Item, Runner

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

    """

    kind = "python"

    def __init__(self, runner: Runner, *, name: str, device: str, workers: int) -> None:
        self.device = device
        self.workers = workers
        self.facts: Facts = runner.facts
        self.labels = runner.facts.labels or None
        self.version = runner.facts.version
        self.max_batch = BATCH if runner.facts.takes_batches else ONE_BY_ONE
        self._runner = runner
        self._mean_cost = 1.0
        self._health = HealthCheck(runner.check, name=name) if runner.facts.has_check else None

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

    def problems(self) -> list[str]:
        """Return what the class says of its health."""
        return self._health.problems() if self._health else []

    def close(self) -> None:
        """Release the class."""
        if self._health:
            self._health.close()
        self._runner.close()
