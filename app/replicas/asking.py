"""How the replicas of a model are asked: within a time, and once more where one has died."""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Protocol

from app.errors import (
    DeadlineExceededError,
    InferenceFailedError,
    ModelCrashedError,
    ModelUnavailableError,
    OverloadedError,
    ServiceError,
)

log = logging.getLogger(__name__)

# A replica that died under a call may have been shut down, or killed for another's sake. A call
# that ends a second one is likely to be what ends them.
ATTEMPTS: Final = 2


class Answer(Protocol):
    """Ray's `DeploymentResponse`, or `DeploymentResponseGenerator`."""

    def result(self, *, timeout_s: float | None = None) -> Any:  # noqa: ANN401  # of any method
        """Wait in a thread for what a method returns."""
        ...

    def cancel(self) -> None:
        """Cancel the call, also where it runs."""
        ...

    def __aiter__(self) -> AsyncIterator[Any]:
        """Yield what a method yields."""
        ...


class Handle(Protocol):
    """Ray's `DeploymentHandle`."""

    def options(self, *, method_name: str, stream: bool) -> "Handle":
        """Return the handle of a method."""
        ...

    def remote(self, *arguments: Any) -> Answer:  # noqa: ANN401  # of any method
        """Call it in one of the replicas, which Ray chooses."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RayErrors:
    """What Ray's errors mean."""

    died: tuple[type[Exception], ...]  # the replica, its process or its machine
    full: tuple[type[Exception], ...]  # more calls wait than the deployment lets
    undeployed: tuple[type[Exception], ...]  # none of its replicas could start


class Replicas:
    """The replicas of one model.

    Args:
        name: of the model.
        handle: of its deployment.
        errors: what Ray raises.

    """

    def __init__(self, name: str, handle: Handle, errors: RayErrors) -> None:
        self.name = name
        self.load_s = 1.0  # after so long a replica may be back
        self._handle = handle
        self._errors = errors
        self._methods: dict[tuple[str, bool], Handle] = {}

    def ask(self, method: str, *arguments: object, timeout_s: float) -> Any:  # noqa: ANN401
        """Call a method, and return what it returns; blocks its thread.

        A call whose replica died is repeated once, in another one.

        Raises:
            ModelCrashedError: that one died too.
            DeadlineExceededError: the time is up; the call has been cancelled.
            OverloadedError, ModelUnavailableError: as Ray says.

        """
        until_s = monotonic() + timeout_s
        for attempt in range(1, ATTEMPTS + 1):
            answer = self._method(method, stream=False).remote(*arguments)
            try:
                return answer.result(timeout_s=max(0.0, until_s - monotonic()))
            except self._errors.died as death:
                self._note_death(death, attempt)
                if attempt == ATTEMPTS:
                    raise self.explain(death) from None
            except TimeoutError as late:
                answer.cancel()
                raise self.explain(late) from None
            except (*self._errors.full, *self._errors.undeployed) as refusal:
                raise self.explain(refusal) from None
        raise AssertionError("the last attempt raises")

    def stream(self, method: str, *arguments: object) -> Answer:
        """Call a method that yields; who leaves before its end has to cancel it."""
        return self._method(method, stream=True).remote(*arguments)

    def explain(self, failure: Exception) -> ServiceError:
        """Return the error that callers get."""
        if isinstance(failure, ServiceError):
            return failure
        if isinstance(failure, self._errors.died):
            return ModelCrashedError(retry_after_s=max(1, round(self.load_s)))
        if isinstance(failure, self._errors.full):
            return OverloadedError(retry_after_s=1)
        if isinstance(failure, self._errors.undeployed):
            return ModelUnavailableError()
        if isinstance(failure, TimeoutError):
            return DeadlineExceededError()
        return InferenceFailedError()

    def has_died(self, failure: Exception) -> bool:
        """Say whether a call failed because its replica died, and note it."""
        if not isinstance(failure, self._errors.died):
            return False
        self._note_death(failure, 1)
        return True

    def _note_death(self, death: Exception, attempt: int) -> None:
        extra = {"model": self.name, "error": type(death).__name__, "attempt": attempt}
        log.warning("replica_lost", extra=extra)

    def _method(self, name: str, *, stream: bool) -> Handle:
        """Return a method's handle, which is made once: that takes longer than a call."""
        if (name, stream) not in self._methods:
            made = self._handle.options(method_name=name, stream=stream)
            self._methods[name, stream] = made
        return self._methods[name, stream]
