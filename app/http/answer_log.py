"""How a route writes its answers to the prediction log, and says which entries are theirs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request

from app.core.version_choice import version_choice
from app.errors import ServiceError
from app.http.deps import RuntimeDep
from app.http.guard import CallerDep
from app.services.prediction_log import (
    AnsweredEntry,
    EntryLog,
    PredictionLogEntry,
    new_id,
    prediction_id,
    to_ms,
)

# Of an answer that is one entry; where there are several, each result has its own.
PREDICTION_ID = "X-Prediction-ID"


class AnswerLog:
    """Makes the log's entries of one request.

    Args:
        log: takes the entries.
        key_id: the caller's key.
        started_s: when the request came, as `time.monotonic` counts.
        state: of the request, whose `headers` its answer gets; None: it has none.

    """

    def __init__(
        self,
        log: EntryLog,
        *,
        key_id: int | None,
        started_s: float,
        state: dict[str, Any] | None = None,
    ) -> None:
        self._log = log
        self._key_id = key_id
        self._started_s = started_s
        self._state = state if log.keeps_entries else None
        self._named = 0
        self._announced: list[tuple[datetime, int]] = []

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
        if self._announced:
            columns["time"], columns["id"] = self._announced.pop()
        return AnsweredEntry(task=task, input=text, key_id=self._key_id, model=model, **columns)

    def announce(self) -> None:
        """Name the next entry already, whose answer begins before it is known: a stream.

        The entry's time is now, when its answer begins.
        """
        if self._state is not None:
            moment, number = datetime.now(UTC), new_id()
            self._announced.append((moment, number))
            self._name(prediction_id(moment, number))

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

    def put(self, entry: PredictionLogEntry) -> str | None:
        """Log an entry and return its name, if it is kept; call it last, before the answer.

        It takes 3 µs, less than a task after the answer would. An answer that its client doesn't
        wait for has its entry too.
        """
        self._log.put(entry)
        if self._state is None:
            return None
        name = prediction_id(entry.time, entry.id)
        self._name(name)
        return name

    def _name(self, name: str) -> None:
        """Have the answer's header name its entry, unless that is one of several."""
        assert self._state is not None  # noqa: S101  # of who calls it
        headers = self._state.get("headers", {})
        if headers.get(PREDICTION_ID) == name:
            return  # as it was announced
        self._named += 1
        if self._named == 1:  # others may share these headers
            self._state["headers"] = {**headers, PREDICTION_ID: name}
        elif self._named == 2:  # noqa: PLR2004
            self._state["headers"] = {k: v for k, v in headers.items() if k != PREDICTION_ID}


async def get_answer_log(request: Request, runtime: RuntimeDep, caller: CallerDep) -> AnswerLog:
    """Begin the entries of a request."""
    return AnswerLog(
        runtime.entries,
        key_id=caller.key_id,
        started_s=request.state.received_s,
        state=request.scope["state"],
    )


AnswerLogDep = Annotated[AnswerLog, Depends(get_answer_log)]
