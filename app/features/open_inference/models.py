"""Finds what a request's path names: a model, its task's tensors, its version."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from app.batching.base import Scheduler
from app.core.version_choice import version_choice
from app.errors import UnsupportedFieldError
from app.http.tensors import TensorTask
from app.models.registry import Lease, ModelRegistry, TaskKey

TensorTasks = Mapping[str, TensorTask]  # by what models.toml calls the tasks


def tensors_of(tasks: TensorTasks, registry: ModelRegistry, model_name: str) -> TensorTask:
    """Return the tensors of a model.

    Raises:
        ModelNotFoundError: there is no model of that name.
        UnsupportedFieldError: its task has no tensors.

    """
    kind = registry.task_of(model_name)
    if kind not in tasks:
        raise UnsupportedFieldError(detail=f"Models of the task {kind} have no tensors.")
    return tasks[kind]


def checked(
    registry: ModelRegistry, model_name: str, version: str | None
) -> AbstractContextManager[object]:
    """Check that a model serves, or will when it is asked: the question must not wake it."""
    if registry.model(model_name).entry.is_asleep:
        return nullcontext()
    return leased(registry, model_name, version)


@contextmanager
def leased(
    registry: ModelRegistry, model_name: str, version: str | None
) -> Iterator[Lease[Scheduler[Any]]]:
    """Lease a model in the version that the path names, if any; raises as `ModelRegistry.lease`."""
    key = TaskKey[Scheduler[Any]](registry.task_of(model_name))
    choice = version_choice.get()
    if version is not None and choice is not None:
        choice.wanted = version
    with registry.lease(model_name, key) as lease:
        yield lease
