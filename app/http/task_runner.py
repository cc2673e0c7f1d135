"""How a route runs texts of a task: charge the caller, lease and run the model, log the answers."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, TypeVar

from fastapi import BackgroundTasks, Depends, Request

from app.batching.deadline import Deadline
from app.batching.scheduler import BatchScheduler
from app.core.callers import Caller
from app.engines.base import TextEngine
from app.errors import ServiceError
from app.http.answer_log import AnswerLog, get_answer_log
from app.http.deps import DeadlineDep, RegistryDep, get_runtime
from app.http.guard import CallerDep
from app.models.registry import TaskKey
from app.runtime.runtime import Runtime
from app.services.inference import Inference, InferenceService, Plan, Refuse

E = TypeVar("E", bound=TextEngine)
A = TypeVar("A")
logger = logging.getLogger(__name__)

# Columns of the log's entry of a text, of its row; of all texts together where they are one input.
Columns = Callable[[Any], Mapping[str, Any]]


class TaskRunner:
    """Runs texts for one request.

    Args:
        runtime: what the service has.
        inference: runs them.
        deadline: of the request.
        caller: whose request it is.
        log: of its answers.

    """

    def __init__(
        self,
        runtime: Runtime,
        inference: InferenceService,
        *,
        deadline: Deadline,
        caller: Caller,
        log: AnswerLog,
    ) -> None:
        self.inference = inference
        self._deadline = deadline
        self._access = runtime.access
        self._log_inputs = runtime.policy.log_inputs
        self._caller = caller
        self._log = log

    async def each(
        self,
        task: TaskKey[BatchScheduler[E]],
        texts: Sequence[str],
        *,
        model_name: str | None,
        columns: Columns,
        plan: Callable[[E], Plan] | None = None,
        refuse: Refuse | None = None,
    ) -> Inference[E]:
        """Run texts, each an input of its own: one that fails has its error, and its own entry.

        Args:
            task: which the model must do.
            texts: to run.
            model_name: None for the task's default model.
            columns: what the log's entry says of a row.
            plan: asked of the engine before anything runs.
            refuse: says which texts no engine needs to see.

        Raises:
            ServiceError: as `InferenceService.run`.

        """
        started = time.monotonic()
        with self._log.failures(task, *texts, model=model_name):
            made = await self.inference.run(
                task,
                texts,
                model_name=model_name,
                deadline=self._deadline,
                plan=plan,
                refuse=refuse,
            )
        self._log_made(made.model, texts, time.monotonic() - started)
        log, shared = self._log, {"model": made.model, "version": made.version}
        rows = list(zip(texts, made.rows, strict=True))
        log.keep(
            *(
                log.entry(task, text, **shared, **columns(row))
                for text, row in rows
                if not isinstance(row, ServiceError)
            )
        )
        for text, row in rows:
            if isinstance(row, ServiceError):  # logged now: a route may raise it
                log.put(log.failure(row, task, text, **shared))
        return made

    def _log_made(self, model: str, texts: Sequence[str], seconds: float) -> None:
        inputs = {"texts": list(texts)} if self._log_inputs else {}
        fields = {"model": model, "count": len(texts), "duration_ms": round(seconds * 1000, 2)}
        logger.info("prediction_made", extra=fields | inputs)

    async def together(  # each says another thing of the request
        self,
        task: TaskKey[BatchScheduler[E]],
        texts: Sequence[str],
        *,
        model_name: str | None,
        answer: Callable[[Inference[E]], A],
        plan: Callable[[E], Plan] | None = None,
        charged_tokens: int = 0,
    ) -> A:
        """Run texts that are one input with one entry: all of them, or none.

        Args:
            task: which the model must do.
            texts: to run.
            model_name: None for the task's default model.
            answer: makes the answer of the rows; raises where it lacks one.
            plan: asked of the engine before anything runs.
            charged_tokens: of the caller's quota.

        Raises:
            RateLimitExceededError: nothing was left of the quota.
            ServiceError: as `InferenceService.run` and `answer`.

        """
        joined = "\n".join(texts)
        charge = (
            self._access.spending(self._caller, charged_tokens) if charged_tokens else nullcontext()
        )
        async with charge:
            with self._log.failures(task, joined, model=model_name):
                made = await self.inference.run(
                    task, texts, model_name=model_name, deadline=self._deadline, plan=plan
                )
                answered = answer(made)
        self._log.keep(
            self._log.entry(
                task, joined, model=made.model, version=made.version, prompt_tokens=made.tokens
            )
        )
        return answered


# FastAPI makes a class that is a dependency in a thread, each time; and it goes through what a
# dependency asks for once for each that asks, found or not: each level here costs each request.
async def get_runner(
    request: Request,
    background: BackgroundTasks,
    registry: RegistryDep,
    deadline: DeadlineDep,
    caller: CallerDep,
) -> TaskRunner:
    """Return what runs the texts of this request."""
    runtime = await get_runtime(request)
    return TaskRunner(
        runtime,
        InferenceService(registry, runtime.results),
        deadline=deadline,
        caller=caller,
        log=await get_answer_log(request, background, runtime, caller),
    )


RunnerDep = Annotated[TaskRunner, Depends(get_runner)]
