"""What the registry lends: a model on loan, with the type that its task gives it."""

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from app.models.catalog import ModelSpec
from app.models.entries import Servable

M = TypeVar("M", bound=Servable)


class TaskKey(str, Generic[M]):
    """The name of a task, as in the catalogue, with the type that a lease of its models has."""

    __slots__ = ()

    def of(self, model: Servable) -> M:
        """Return a model of this task with its type, which `runtime/parts.py` sees to."""
        return cast("M", model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease(Generic[M]):
    """A model on loan: it stays loaded until the lease ends."""

    spec: ModelSpec
    model: M
    version: str  # of the files
