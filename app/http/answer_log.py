"""How a route writes its answers to the prediction log."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import Depends, Request

from app.core.version_choice import version_choice
from app.errors import ServiceError
from app.http.deps import RuntimeDep
from app.http.guard import CallerDep
from app.services.prediction_log import EntryLog, PredictionLogEntry, to_ms


class AnswerLog:
    """Makes the log's entries of one request.

    Args:
        log: takes the entries.
        key_id: the caller's key.
        started_s: when the request came, as `time.monotonic` counts.

    """

    def __init__(self, log: EntryLog, *, key_id: int | None, started_s: float) -> None:
        self._log = log
        self._key_id = key_id
        self._started_s = started_s

    def entry(
        self,
        task: str,
        text: str,
        *,
        model: str,
        **columns: Any,  # noqa: ANN401  # fields of the entry
    ) -> PredictionLogEntry:
        """Return the entry of an answer; `latency_ms` is the time until now unless it is given."""
        columns.setdefault("latency_ms", to_ms(time.monotonic() - self._started_s))
        return PredictionLogEntry(
            task=task, input=text, key_id=self._key_id, model=model, **columns
        )

    def failure(
        self,
        error: ServiceError,
        task: str,
        text: str,
        *,
        model: str,
        **columns: Any,  # noqa: ANN401  # fields of the entry
    ) -> PredictionLogEntry:
        """Return the entry of a request that was answered with an error."""
        return self.entry(task, text, model=model, status=error.status, error=error.code, **columns)

    @contextmanager
    def failures(self, task: str, *texts: str, model: str | None) -> Iterator[None]:
        """Log an entry for each text when the block raises an error; the error is re-raised.

        Args:
            task: of the request.
            texts: the inputs that get an entry each.
            model: the name in the request, if any.

        """
        try:
            yield
        except ServiceError as error:
            choice = version_choice.get()
            shared: dict[str, Any] = {
                "model": model or "",
                "version": choice.answered if choice else None,  # None: no model was lent
                "latency_ms": to_ms(time.monotonic() - self._started_s),
            }
            for text in texts:
                self.put(self.failure(error, task, text, **shared))
            raise

    def put(self, entry: PredictionLogEntry) -> None:
        """Log an entry; call it last, when nothing is left to do but to answer.

        It takes 2 µs, less than a task after the answer would. An answer that its client doesn't
        wait for has its entry too.
        """
        self._log.put(entry)


async def get_answer_log(request: Request, runtime: RuntimeDep, caller: CallerDep) -> AnswerLog:
    """Begin the entries of a request."""
    return AnswerLog(runtime.entries, key_id=caller.key_id, started_s=request.state.received_s)


AnswerLogDep = Annotated[AnswerLog, Depends(get_answer_log)]
