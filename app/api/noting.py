"""What a route tells the prediction log about its request."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request

from app.api.predictions import PredictionsDep, ScopeDep
from app.db.predictions import Prediction
from app.engines.base import Message, Task
from app.http.deps import RuntimeDep
from app.http.guard import CallerDep
from app.services.prediction_records import Origin
from app.services.predictions import PredictionLog
from app.services.streaming import Ended, OnEnd


class Note:
    """One request's rows in the making.

    Args:
        predictions: the log.
        background: tasks that run after the answer is sent.
        key_id: the caller's key.
        started_s: when the request came, as `time.monotonic` counts.

    """

    def __init__(
        self,
        predictions: PredictionLog,
        background: BackgroundTasks,
        *,
        key_id: int | None,
        started_s: float,
    ) -> None:
        self.record = predictions.record
        self._predictions = predictions
        self._background = background
        self._key_id = key_id
        self._started_s = started_s

    def failures(self, task: Task, *texts: str, model: str | None) -> AbstractContextManager[None]:
        """Put rows for an error that leaves the block; `model` is the name that was asked for."""
        return self._predictions.failures(
            task, texts, key_id=self._key_id, model=model, started_s=self._started_s
        )

    def origin(self, model: str, *, version: str | None) -> Origin:
        """Return whose answer it is; it has taken until now."""
        return Origin(
            key_id=self._key_id,
            model=model,
            version=version,
            latency_s=time.monotonic() - self._started_s,
        )

    def keep(self, *rows: Prediction) -> None:
        """Put rows once the answer is sent."""
        self._background.add_task(self._predictions.keep, *rows)

    def chat(self, messages: Sequence[Message], *, then: OnEnd | None = None) -> OnEnd:
        """Return what a chat's end is told to: it puts the row, and tells `then`.

        Responses of our own, such as streams, run no background tasks.
        """

        def note(ended: Ended) -> None:
            origin = Origin(
                key_id=self._key_id,
                model=ended.model,
                version=ended.version,
                latency_s=ended.seconds,
            )
            row = self.record.chatted(
                ended.end, messages=messages, ttft_s=ended.first_token_s, origin=origin
            )
            self._predictions.put(row)
            if then is not None:
                then(ended)

        return note


async def get_note(
    request: Request, background: BackgroundTasks, predictions: PredictionsDep, scope: ScopeDep
) -> Note:
    """Begin the rows of a request."""
    return Note(predictions, background, key_id=scope.key_id, started_s=request.state.received_s)


NoteDep = Annotated[Note, Depends(get_note)]


# Takes the messages of a conversation; charges their caller, and returns whom to tell of its end.
Account = Callable[[Sequence[Message]], Awaitable[OnEnd]]


async def get_account(runtime: RuntimeDep, caller: CallerDep, note: NoteDep) -> Account:
    """Return what charges the caller of a generation, and logs it."""

    async def account(messages: Sequence[Message]) -> OnEnd:
        charge = await runtime.ledger.begin(caller, messages)
        return note.chat(messages, then=partial(runtime.ledger.generated, charge, messages))

    return account


AccountDep = Annotated[Account, Depends(get_account)]
