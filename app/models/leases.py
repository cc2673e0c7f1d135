"""What the registry lends: a model on loan, with the type that its task gives it."""

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from app.errors import ModelNotReadyError, ModelUnavailableError
from app.models.catalog import ModelSpec
from app.models.entries import ModelEntry, ModelState, Servable, Served

# Retry-After while a model loads; most load in seconds.
LOADING_RETRY_S = 2
RESTARTING = "The model's process has ended and is being started again."

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


def usable(entry: ModelEntry) -> Served:
    """Return what can be lent of a model.

    Raises:
        ModelNotReadyError: it is still loading, or its processes are being started again.
        ModelUnavailableError: it could not be loaded, or isn't.

    """
    if entry.is_loading:
        raise ModelNotReadyError(retry_after_s=LOADING_RETRY_S)
    if entry.served is None or entry.state_now is ModelState.FAILED:
        raise ModelUnavailableError
    if entry.state_now is ModelState.RESTARTING:
        raise ModelNotReadyError(RESTARTING, retry_after_s=entry.retry_after_s)
    return entry.served
