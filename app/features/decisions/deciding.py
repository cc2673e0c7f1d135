"""Chooses what decides: the model that a request names, by its task."""

from collections.abc import Sequence
from typing import Annotated, Protocol

from fastapi import Depends

from app.engines.base import Task
from app.errors import ModelNotFoundError
from app.features.decisions import classifier, zero_shot
from app.features.decisions.chat import ChatDecider
from app.features.decisions.questions import Decided, Question
from app.http.answer_log import AnswerLogDep
from app.http.deps import ChatDeadlineDep, RegistryDep
from app.http.guard import AccessDep, CallerDep
from app.http.task_runner import RunnerDep, TaskRunner
from app.models.registry import ModelRegistry


class Backend(Protocol):
    """Answers questions about a state with models of one task."""

    async def __call__(
        self,
        run: TaskRunner,
        state: str,
        questions: Sequence[Question],
        *,
        model_name: str,
        field: str,
    ) -> Decided:
        """Return a verdict for each question."""
        ...


# Where no model is named, it is the default chat model, or the default one of the first of these
# tasks that has one.
BACKENDS: dict[Task, Backend] = {
    Task.ZERO_SHOT: zero_shot.decide,
    Task.CLASSIFICATION: classifier.decide,
}


class Decider:
    """Answers the questions of one request.

    Args:
        registry: knows the models.
        run: of the request, for models of texts.
        chat: of the request, for chat models.

    """

    def __init__(self, registry: ModelRegistry, run: TaskRunner, chat: ChatDecider) -> None:
        self._registry = registry
        self._chat = chat
        self._run = run

    async def decide(
        self, state: str, questions: Sequence[Question], *, model_name: str | None, field: str
    ) -> Decided:
        """Return a verdict for each question.

        Args:
            state: the text that the questions are about.
            questions: in any number.
            model_name: None for a default model.
            field: where the body has the state.

        Raises:
            ModelNotFoundError: no model of that name decides.
            ServiceError: as the backends say.

        """
        spec = self._registry.spec(model_name, Task.CHAT)
        if spec is not None:
            return await self._chat.decide(state, questions, model_name=spec.name)
        for task, backend in BACKENDS.items():
            spec = self._registry.spec(model_name, task)
            if spec is not None:
                return await backend(self._run, state, questions, model_name=spec.name, field=field)
        raise ModelNotFoundError


async def get_decider(  # each is a dependency
    registry: RegistryDep,
    run: RunnerDep,
    access: AccessDep,
    caller: CallerDep,
    answers: AnswerLogDep,
    deadline: ChatDeadlineDep,
) -> Decider:
    """Return what answers the questions of this request."""
    chat = ChatDecider(registry, access=access, caller=caller, answers=answers, deadline=deadline)
    return Decider(registry, run, chat)


DeciderDep = Annotated[Decider, Depends(get_decider)]
