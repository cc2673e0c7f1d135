"""The one way of every task but chat: lease a model, run its batches, check its rows."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from app.batching.base import Scheduler
from app.batching.deadline import Deadline
from app.batching.requests import Outcome, Row
from app.core.tracing import span
from app.engines.items import BatchEngine, Prepared
from app.errors import ServiceError
from app.models.catalog import ModelSpec
from app.models.registry import ModelRegistry, TaskKey
from app.services.model_trace import attributes_of, span_of
from app.services.results import ResultChecker

E = TypeVar("E", bound=BatchEngine)
# Returns the error of an item that is refused before it reaches an engine; else None.
Refuse = Callable[[ModelSpec, Any], ServiceError | None]
# Numbers of rows that become answers in a millisecond or two.
QUICK_NUMBERS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How items are run, where a request sets more than the model.

    Args:
        prompt: put before each text, for an embedder.
        shape: turns an engine's row into an answer, or into an exception where it can't be one;
            called in a thread where rows are many or large.

    """

    prompt: str = ""
    shape: Callable[[Any], Row] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference(Generic[E]):
    """The results of a model for some items.

    Args:
        spec: the model's entry in the catalogue.
        version: of the model's files.
        engine: which ran them; it knows what its rows mean, such as their labels.
        rows: one for each item, in their order; an error where one failed alone.
        is_truncated: whether each was cut to the model's window.
        tokens: of all items, after cutting.
        encoded: each item as the engine took it, or its error.
        prediction_ids: of each item's entry in the log, once there is one.

    """

    spec: ModelSpec
    version: str
    engine: E
    rows: list[Any | ServiceError]
    is_truncated: list[bool]
    tokens: int
    encoded: list[Prepared | Exception]
    prediction_ids: list[str] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.spec.name

    def names(self) -> list[str] | list[None]:
        """Return for each item the id of its entry in the log, or None where none is kept."""
        return self.prediction_ids or [None] * len(self.rows)


async def _shaped(rows: Sequence[Row], shape: Callable[[Any], Row] | None) -> list[Row]:
    """Return rows as answers; many numbers in a thread, so that the event loop serves others."""
    if shape is None:
        return list(rows)

    def shaped() -> list[Row]:
        return [row if isinstance(row, Exception) else shape(row) for row in rows]

    if sum(getattr(row, "size", 0) for row in rows) <= QUICK_NUMBERS:
        return shaped()
    return await asyncio.to_thread(shaped)


class InferenceService:
    """Runs texts or other items of any task on the model that a request names.

    Args:
        registry: lends the models.
        results: turns rows that failed into errors.

    """

    def __init__(self, registry: ModelRegistry, results: ResultChecker) -> None:
        self._registry = registry
        self._results = results

    def spec(self, model_name: str | None, task: str) -> ModelSpec | None:
        """Return the entry of the model that would run; None where there is no such model."""
        return self._registry.spec(model_name, task)

    async def wake(self, model_name: str | None, task: str, *, deadline: Deadline) -> None:
        """Load the model where it is loaded on demand; raises as `ModelRegistry.wake`."""
        await self._registry.wake(model_name, task, until_s=deadline.at_s)

    async def run(
        self,
        task: TaskKey[Scheduler[E]],
        items: Sequence[Any],
        *,
        model_name: str | None,
        deadline: Deadline,
        plan: Callable[[E], Plan] | None = None,
        refuse: Refuse | None = None,
    ) -> Inference[E]:
        """Run items; one that fails has an error in its place.

        Args:
            task: of the model.
            items: to run: texts, unless the task has others.
            model_name: None for the task's default model.
            deadline: when the answer is of no use any more.
            plan: called with the engine before anything runs; may refuse all items.
            refuse: called with each item; one that it refuses has that error in its place.

        Raises:
            ModelNotFoundError, ModelNotReadyError, ModelUnavailableError: as the registry says.
            OverloadedError, DeadlineExceededError, NotReadyError: as the scheduler says.

        """
        await self.wake(model_name, task, deadline=deadline)
        with self._registry.lease(model_name, task) as lease:
            scheduler = lease.model
            planned = plan(scheduler.engine) if plan else Plan()
            refused = {
                index: error
                for index, item in enumerate(items)
                if refuse and (error := refuse(lease.spec, item))
            }
            accepted = [item for index, item in enumerate(items) if index not in refused]
            outcome = Outcome(rows=[], is_truncated=[], tokens=0, encoded=[])
            if accepted:
                with span(*span_of(lease.spec)) as trace:
                    outcome = await scheduler.submit(
                        accepted, deadline=deadline, prompt=planned.prompt
                    )
                    if trace is not None:
                        trace.note(attributes_of(lease.spec, outcome))
        rows = await _shaped(outcome.rows, planned.shape)
        for index, error in refused.items():  # ascending, so that later indexes stay right
            rows.insert(index, error)
            outcome.is_truncated.insert(index, False)
            outcome.encoded.insert(index, error)
        return Inference(
            spec=lease.spec,
            version=lease.version,
            engine=scheduler.engine,
            rows=[self._results.check(row, model=lease.spec.name) for row in rows],
            is_truncated=outcome.is_truncated,
            tokens=outcome.tokens,
            encoded=outcome.encoded,
        )
