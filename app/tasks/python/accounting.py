"""Counts and logs a stream of a Python class when it has ended."""

import time
from typing import Any

from app.core.metrics import Metrics
from app.errors import (
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotReadyError,
    OverloadedError,
    ReaderTooSlowError,
    ServiceError,
)
from app.http.answer_log import AnswerLog
from app.services.pieces import PieceStream

# nginx's number for "the client closed the connection", as in the request log.
CLIENT_LEFT = 499
# Ends that aren't failures of the model; labels of a metric, as of generations.
ENDS = {DeadlineExceededError: "deadline", ReaderTooSlowError: "reader_too_slow"}
REFUSALS = {OverloadedError: "overloaded", DeadlineExceededError: "deadline"}


class StreamAccount:
    """Takes the end of one stream.

    Args:
        log: of answers.
        metrics: of the process.
        task: of the model.
        text: what was sent.
        model_name: as in the path; metrics have only names of models that there are.
        line: fields of the request's line in the log.
        log_inputs: whether that has the text.

    """

    def __init__(  # noqa: PLR0913  # each is of another part of the way
        self,
        log: AnswerLog,
        metrics: Metrics,
        *,
        task: str,
        text: str,
        model_name: str,
        line: dict[str, Any],
        log_inputs: bool,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._task = task
        self._text = text
        self._model_name = model_name
        self._line = line
        self._log_inputs = log_inputs
        self._began_s = time.monotonic()

    def ended(
        self, stream: PieceStream | None, error: ServiceError | None, *, end: str | None = None
    ) -> None:
        """Note that all was sent, or the error with which it ended, or why it never began.

        Args:
            stream: None: it never began.
            error: None: all was sent.
            end: in one word, as a metric has it, where the error doesn't say so.

        """
        self._describe(stream)
        if error is None and stream is not None:
            self._log.put(self._log.entry(self._task, self._text, **_columns(stream)))
            self._count(stream, "stop")
            return
        assert error is not None  # noqa: S101  # what never began has one
        columns: dict[str, Any] = {"model": self._model_name}
        if stream is not None:
            columns = _columns(stream)
        self._log.put(self._log.failure(error, self._task, self._text, **columns))
        if isinstance(error, OverloadedError | DeadlineExceededError):
            self._metrics.refused.labels(self._model_name, REFUSALS[type(error)]).inc()
        if stream is None:
            return
        # What is wrong with the request, or isn't there yet, is no generation that failed.
        if end or not isinstance(error, InvalidRequestError | ModelNotReadyError):
            self._count(stream, end or ENDS.get(type(error), "failed"))

    def left(self, stream: PieceStream | None) -> None:
        """Note that the client has left."""
        self._describe(stream)
        if stream is None:
            return
        columns: dict[str, Any] = {"status": CLIENT_LEFT, "error": "client_left"}
        self._log.put(self._log.entry(self._task, self._text, **_columns(stream), **columns))
        self._count(stream, "client_left")
        self._metrics.cancelled.labels(stream.model, "engine").inc()

    def _describe(self, stream: PieceStream | None) -> None:
        """Add to the request's line in the log which model ran, and how long."""
        if stream is None:
            return
        seconds = time.monotonic() - self._began_s
        self._line |= {"model": stream.model, "count": 1, "model_ms": round(seconds * 1000, 2)}
        if self._log_inputs:
            self._line["texts"] = [self._text]

    def _count(self, stream: PieceStream, end: str) -> None:
        self._metrics.generations.labels(stream.model, end).inc()


def _columns(stream: PieceStream) -> dict[str, Any]:
    return {"model": stream.model, "version": stream.version}
