"""How a route runs items of a task: charge the caller, lease and run the model, log the answers."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Annotated, Any, Final, TypeVar

from fastapi import Depends, Request
from pydantic_core import to_json

from app.batching.base import Scheduler
from app.batching.deadline import Deadline
from app.core.callers import Caller
from app.core.logs import request_id
from app.engines.base import Encoded
from app.engines.items import BatchEngine, DescribedItem, Prepared
from app.errors import ServiceError
from app.http.answer_log import AnswerLog, get_answer_log
from app.http.deps import DeadlineDep, RegistryDep, get_runtime
from app.http.guard import CallerDep
from app.models.registry import TaskKey
from app.runtime.runtime import Runtime
from app.services.inference import Inference, InferenceService, Plan, Refuse
from app.services.shadows import ShadowCopy

E = TypeVar("E", bound=BatchEngine)
A = TypeVar("A")

# Rows of which an answer is made in a few milliseconds; of more a thread makes it.
QUICK_ROWS: Final = 64
# Makes the columns of a log entry from a row.
Columns = Callable[[Any], Mapping[str, Any]]


def _text(item: Any) -> str:  # noqa: ANN401  # a text, parsed JSON, or another item
    """Return what the log is given of an item."""
    if isinstance(item, str):
        return item
    return item.describe() if isinstance(item, DescribedItem) else to_json(item).decode()


def _are_described(items: Sequence[Any]) -> bool:
    """Say whether no log may have the items; of none, as where each was refused before, it may."""
    return bool(items) and isinstance(items[0], DescribedItem)


def _counts(*encoded: Prepared | Exception) -> dict[str, Any]:
    """Return the tokens of an entry's texts, and how many of them are unknown, where that is known.

    Pictures and the items of Python classes have none.
    """
    texts = [item for item in encoded if isinstance(item, Encoded)]
    if not texts:
        return {}
    counts = {"input_tokens": sum(text.cost for text in texts)}
    unknown = [text.unknown for text in texts if text.unknown is not None]
    return counts | {"unknown_tokens": sum(unknown)} if unknown else counts


async def _answered(inference: Inference[E], answer: Callable[[Inference[E]], A]) -> A:
    """Return an answer; of many rows in a thread, so that the event loop serves others."""
    if len(inference.rows) <= QUICK_ROWS:
        return answer(inference)
    return await asyncio.to_thread(answer, inference)


class TaskRunner:
    """Runs items for one request.

    Args:
        runtime: of the service.
        inference: runs the items.
        deadline: of the request.
        caller: whose request it is.
        log: of its answers.
        line: fields of the request's line in the log.

    """

    def __init__(
        self,
        runtime: Runtime,
        inference: InferenceService,
        *,
        deadline: Deadline,
        caller: Caller,
        log: AnswerLog,
        line: dict[str, Any],
    ) -> None:
        self.inference = inference
        self._deadline = deadline
        self._access = runtime.access
        self._shadows = runtime.shadows
        self._log_inputs = runtime.policy.log_inputs
        self._caller = caller
        self._log = log
        self._line = line

    async def wake(self, model_name: str | None, task: str) -> None:
        """Load the model where it is loaded on demand; raises as `ModelRegistry.wake`."""
        await self.inference.wake(model_name, task, deadline=self._deadline)

    async def each(
        self,
        task: TaskKey[Scheduler[E]],
        items: Sequence[Any],
        *,
        model_name: str | None,
        columns: Columns,
        plan: Callable[[E], Plan] | None = None,
        refuse: Refuse | None = None,
    ) -> Inference[E]:
        """Run items with a log entry each; one that fails has an error in its place.

        Args:
            task: of the model.
            items: to run: texts, unless the task has others.
            model_name: None for the task's default model.
            columns: makes the columns of a log entry from a row.
            plan: called with the engine before anything runs.
            refuse: returns the error of an item that no engine is to run.

        Raises:
            ServiceError: as `InferenceService.run`.

        """
        started = time.monotonic()
        texts = [_text(item) for item in items]
        with self._log.failures(task, *texts, model=model_name):
            inference = await self.inference.run(
                task,
                items,
                model_name=model_name,
                deadline=self._deadline,
                plan=plan,
                refuse=refuse,
            )
        if _are_described(items):
            texts = [_text(item) for item in items]  # the engine has read them
        self._describe(inference.model, texts, time.monotonic() - started)
        log, shared = self._log, {"model": inference.model, "version": inference.version}
        for text, row, item in zip(texts, inference.rows, inference.encoded, strict=True):
            if isinstance(row, ServiceError):
                name = log.put(log.failure(row, task, text, **shared))
            else:
                name = log.put(log.entry(task, text, **shared, **_counts(item), **columns(row)))
            if name is not None:
                inference.prediction_ids.append(name)

        def entries(shadowed: Inference[E]) -> list[Mapping[str, Any] | ServiceError]:
            rows = shadowed.rows
            return [row if isinstance(row, ServiceError) else columns(row) for row in rows]

        self._copy(task, inference, items, texts=texts, answer=entries, plan=plan, refuse=refuse)
        return inference

    def _copy(  # noqa: PLR0913  # what a shadow needs to do the same
        self,
        task: TaskKey[Scheduler[E]],
        inference: Inference[E],
        items: Sequence[Any],
        *,
        texts: Sequence[str],
        answer: Callable[[Inference[E]], Sequence[Mapping[str, Any] | ServiceError]],
        plan: Callable[[E], Plan] | None,
        refuse: Refuse | None = None,
    ) -> None:
        """Give a copy of what was answered to the model's shadows, if it has any."""
        if _are_described(items) or not self._shadows.of(inference.model, inference.version):
            return
        self._shadows.copy(
            ShadowCopy(
                task=task,
                model=inference.model,
                version=inference.version,
                items=items,
                texts=texts,
                answer=answer,
                plan=plan,
                refuse=refuse,
                request_id=request_id.get(),
                at_s=time.monotonic(),
            )
        )

    def _describe(self, model: str, texts: Sequence[str], seconds: float) -> None:
        """Add to the request's line in the log which model ran how many items, how long."""
        self._line |= {"model": model, "count": len(texts), "model_ms": round(seconds * 1000, 2)}
        if self._log_inputs:
            self._line["texts"] = list(texts)

    async def together(  # noqa: PLR0913  # each is of another part of the way
        self,
        task: TaskKey[Scheduler[E]],
        items: Sequence[Any],
        *,
        model_name: str | None,
        answer: Callable[[Inference[E]], A],
        plan: Callable[[E], Plan] | None = None,
        charged_tokens: int = 0,
        logged: str | None = None,
        columns: Columns | None = None,
    ) -> A:
        """Run items with one log entry for all; if one fails, all do.

        Args:
            task: of the model.
            items: to run: texts, pairs of them where the model takes any, or what the task has.
            model_name: None for the task's default model.
            answer: makes the answer from the rows; raises if a row is missing. Called in a thread
                where there are many.
            plan: called with the engine before anything runs.
            charged_tokens: of the caller's quota.
            logged: the entry's input; None: the texts, a line each.
            columns: makes more columns of the entry from the answer.

        Raises:
            RateLimitExceededError: nothing was left of the quota.
            ServiceError: as `InferenceService.run` and `answer`.

        """
        joined = "\n".join(map(_text, items)) if logged is None else logged
        are_described = _are_described(items)
        charge = (
            self._access.spending(self._caller, charged_tokens) if charged_tokens else nullcontext()
        )
        async with charge:
            with self._log.failures(task, joined, model=model_name):
                inference = await self.inference.run(
                    task, items, model_name=model_name, deadline=self._deadline, plan=plan
                )
                result = await _answered(inference, answer)
        if are_described:
            joined = "\n".join(map(_text, items))  # the engine has read them
        self._log.put(
            self._log.entry(
                task,
                joined,
                model=inference.model,
                version=inference.version,
                prompt_tokens=None if are_described else inference.tokens,
                **_counts(*inference.encoded),
                **(columns(result) if columns else {}),
            )
        )

        def entries(shadowed: Inference[E]) -> list[Mapping[str, Any]]:
            shadow_result = answer(shadowed)  # raises where it has none
            return [columns(shadow_result) if columns else {}]

        self._copy(task, inference, items, texts=[joined], answer=entries, plan=plan)
        return result


# A function: FastAPI calls a class that is a dependency in a thread. And few levels: FastAPI walks
# through all dependencies of a dependency for each request, those that are cached too.
async def get_runner(
    request: Request,
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
        log=await get_answer_log(request, runtime, caller),
        line=request.scope["state"].setdefault("log", {}),
    )


RunnerDep = Annotated[TaskRunner, Depends(get_runner)]
