"""How one line is run: by the service's own routes, in its owner's name, while no client waits."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pydantic_core import from_json

from app.core.backoff import Backoff
from app.core.callers import Caller
from app.errors import (
    ForbiddenError,
    ModelUnavailableError,
    RateLimitExceededError,
    UnauthorizedError,
)
from app.features.openai_batches.answers import (
    answered,
    error_answer,
    new_request_id,
    no_stream,
)
from app.features.openai_batches.idle import POLL_S, IdleCapacity
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.schemas import ENDPOINTS
from app.features.openai_batches.values import Batch, Line, LineAnswer
from app.services.access import Access
from app.services.own_requests import OwnAnswer, OwnRequest, OwnRequests

# Of a line whose answer is an error of the service's; the last one is written.
ATTEMPTS = 3
PAUSES = Backoff(first_s=0.5, max_s=5.0, jitter=0.5)
TOO_MANY, SERVER_ERROR, UNAVAILABLE = 429, 500, 503


class LineStoppedError(Exception):
    """The turn is over before the line was begun."""


class PutOffError(Exception):
    """The service refuses the line for now: too many tokens of the day, a model that loads.

    Args:
        line: that was refused.
        answer: its refusal.

    """

    def __init__(self, line: LineAnswer, answer: OwnAnswer) -> None:
        super().__init__(answer.status)
        self.line = line
        self.retry_after_s = answer.retry_after_s or 1
        self.is_quota = answer.status == TOO_MANY


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """In whose name a batch's lines are run; `refusal` is their answer if that can't be."""

    caller: Caller
    refusal: OwnAnswer | None = None


class LineRunner:
    """Runs lines.

    Args:
        requests: answers them.
        access: knows the owners of batches.
        idle: says when a line may run.
        metrics: where lines count that are run again.

    """

    def __init__(
        self,
        requests: OwnRequests,
        *,
        access: Access,
        idle: IdleCapacity,
        metrics: BatchesMetrics,
    ) -> None:
        self._requests = requests
        self._access = access
        self._idle = idle
        self._count = metrics.lines

    async def owner(self, batch: Batch) -> Owner:
        """Return in whose name a batch's lines are run; a key may have ended meanwhile.

        Raises:
            DatabaseUnavailableError: it can't be looked up.

        """
        needed = ENDPOINTS[batch.endpoint]
        try:
            # Callers without a stored key have collection 0.
            caller = await self._access.owner(batch.collection or None)
        except UnauthorizedError as failure:
            return Owner(caller=Caller(scopes=frozenset()), refusal=error_answer(failure))
        if caller.may(needed):
            return Owner(caller=caller)
        refusal = ForbiddenError(f"The key has no scope {needed.value!r}.")
        return Owner(caller=caller, refusal=error_answer(refusal))

    async def run(
        self, line: Line, endpoint: str, owner: Owner, *, is_stopping: Callable[[], bool]
    ) -> LineAnswer:
        """Run a line until it is answered.

        Args:
            line: to be run.
            endpoint: whose route answers it.
            owner: in whose name.
            is_stopping: whether no line may be begun any more.

        Raises:
            LineStoppedError: it wasn't begun in time.
            PutOffError: the service refuses it for now.

        """
        refusal = no_stream() if line.is_streamed else owner.refusal
        if refusal is not None:
            return answered(line, refusal, request_id=new_request_id())
        failures = 0
        while True:
            await self._wait(is_stopping)
            request = OwnRequest(
                path=endpoint,
                body=line.body,
                caller=owner.caller,
                request_id=new_request_id(),
            )
            answer = await self._idle.run(partial(self._requests.answer, request))
            if answer is None:
                self._count.labels("yielded").inc()
                continue
            written = answered(line, answer, request_id=request.request_id)
            if _is_put_off(answer):
                self._count.labels("put_off").inc()
                raise PutOffError(written, answer)
            failures += answer.status >= SERVER_ERROR
            if answer.status < SERVER_ERROR or failures >= ATTEMPTS:
                return written
            await asyncio.sleep(PAUSES.pause_s(failures))

    async def _wait(self, is_stopping: Callable[[], bool]) -> None:
        """Wait until a line may begin.

        Raises:
            LineStoppedError: none may any more.

        """
        while True:
            if is_stopping():
                raise LineStoppedError
            if self._idle.is_idle:
                return
            await asyncio.sleep(POLL_S)


def _is_put_off(answer: OwnAnswer) -> bool:
    """Say whether the same line may have another answer in a while, without anybody's help."""
    if answer.status not in {TOO_MANY, UNAVAILABLE}:
        return False
    code = from_json(answer.body)["error"]["code"]
    is_own = answer.status == UNAVAILABLE or code == RateLimitExceededError.code
    return is_own and bool(code != ModelUnavailableError.code)
