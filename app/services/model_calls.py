"""Calls of served models by Python classes (`self.models`): from their threads to the event loop.

Each goes the way of a request of the other model: its lease, its queue, its batches, its metrics.
It ends when nobody waits for the class's answer any more.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic_core import from_json

from app.batching.deadline import Deadline
from app.core.call_scope import CallScope, current_scope
from app.engines.python.models import NOT_HERE, NOT_SERVED, Answers, CallModel, ModelCallError
from app.errors import (
    DeadlineExceededError,
    EngineError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
    ServiceError,
)
from app.models.catalog import ModelSpec
from app.models.registry import ModelRegistry
from app.services.inference import InferenceService
from app.services.places import place_in, whole

log = logging.getLogger(__name__)

# The other model's queue ends a call at its deadline; this is for an event loop that is late.
GRACE_S: Final = 1.0
ITEMS: Final = place_in("items")
NOBODY_WAITS: Final = "Nobody waits for the answer any more."
CLOSED: Final = "The service is shutting down."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A call of a model.

    Args:
        model: its name.
        items: parsed JSON.
        deadline: of the requests for which the class runs.

    """

    model: str
    items: list[Any]
    deadline: Deadline


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledServices:
    """What a task needs to answer a call."""

    registry: ModelRegistry
    inference: InferenceService
    buffer_tokens: int


# Answers a call of a model of one task; raises ServiceError, as of the first item that fails.
AnswerCall = Callable[[ModelCall, CalledServices], Awaitable[Answers]]


class ModelCalls:
    """Carries calls; open it once there is a registry.

    Args:
        answers: what answers calls of the models of each task, by its kind.

    """

    def __init__(self, answers: Mapping[str, AnswerCall]) -> None:
        self._answers = answers
        self._services: CalledServices | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self, services: CalledServices) -> None:
        """Take calls from now on; called on the event loop."""
        self._services, self._loop = services, asyncio.get_running_loop()

    def of(self, spec: ModelSpec) -> CallModel:
        """Return what carries the calls of one class; it calls what its entry uses, and no other.

        Raises:
            EngineError: a model that it uses is of a task that can't be called.

        """
        for name in spec.uses:
            task = self._task_of(name)
            if task not in self._answers:
                raise EngineError(f"uses: {name!r} is a model of {task}, which classes can't call")
        return partial(self._call, frozenset(spec.uses))

    def _task_of(self, name: str) -> str:
        entries = self._services.registry.entries if self._services else ()
        return next((entry.spec.task for entry in entries if entry.spec.name == name), "no task")

    def _call(self, used: frozenset[str], name: str, items: bytes) -> Answers:
        """Have the event loop call a model, and wait; raises as `CallModel`."""
        scope = current_scope()
        if scope is None or name not in used:
            raise ModelCallError(NOT_HERE if scope is None else NOT_SERVED)
        if not scope.remaining_s:
            raise DeadlineExceededError
        called = self._answer(name, items, scope)
        try:
            assert self._loop is not None  # noqa: S101  # nothing is loaded before it is open
            answer = asyncio.run_coroutine_threadsafe(called, self._loop)
        except RuntimeError as failure:  # it is closed
            called.close()
            raise NotReadyError(CLOSED, retry_after_s=1) from failure
        try:
            return answer.result(scope.remaining_s + GRACE_S)
        except CancelledError:
            raise DeadlineExceededError(NOBODY_WAITS) from None
        except TimeoutError:
            answer.cancel()
            raise DeadlineExceededError from None
        except (ServiceError, ModelCallError):
            raise
        except Exception as failure:
            log.exception("model_call_failed", extra={"model": name})
            raise InternalError from failure

    async def _answer(self, name: str, items: bytes, scope: CallScope) -> Answers:
        """Answer, unless all who wait for it leave before."""
        assert self._services is not None  # noqa: S101  # it is open
        task = asyncio.current_task()
        staying = set(scope.waiting)

        def leave(one: asyncio.Future[Any]) -> None:
            staying.discard(one)
            if not staying and task is not None:
                task.cancel()

        for one in scope.waiting:
            one.add_done_callback(leave)
        call = ModelCall(model=name, items=from_json(items), deadline=Deadline(at_s=scope.until_s))
        try:
            return await self._answers[self._task_of(name)](call, self._services)
        finally:
            for one in scope.waiting:
                one.remove_done_callback(leave)


def rows_of(rows: Sequence[Any | ServiceError]) -> list[Any]:
    """Return rows, or raise the first error: a class gets all of its answers, or none."""
    return whole(rows, ITEMS)


def texts_of(call: ModelCall) -> list[str]:
    """Return items that are texts.

    Raises:
        InvalidRequestError: one is none; says which.

    """
    for number, item in enumerate(call.items):
        if not isinstance(item, str):
            raise wrong_item(number, "Input should be a text", kind="string_type")
    return call.items


def pairs_of(call: ModelCall) -> list[tuple[str, str]]:
    """Return items that are pairs of texts; raises as `texts_of`."""
    pairs: list[tuple[str, str]] = []
    for number, item in enumerate(call.items):
        if not isinstance(item, list) or [type(one) for one in item] != [str, str]:
            raise wrong_item(number, "Input should be a pair of texts", kind="tuple_type")
        pairs.append((item[0], item[1]))
    return pairs


def wrong_item(number: int, message: str, *, kind: str) -> InvalidRequestError:
    """Return the error of an item that its model can't take."""
    return InvalidRequestError([{"loc": ["items", number], "msg": message, "type": kind}])
