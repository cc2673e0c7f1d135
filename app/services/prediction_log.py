"""What the prediction log is told of an answer; the feature `prediction_log` stores it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from app.core.logs import request_id

OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionLogEntry:
    """One answer, or the error in its place.

    Args:
        task: what was asked.
        input: the text, all texts with a line each, or the last message of a chat.
        key_id: the caller's key; None for callers without a stored one.
        model: its name; of a request that failed before, the name that was asked for.
        version: of the model's files; None where no model was found.
        latency_s: from the request to its answer.
        status: of the answer.
        error: code of the error; None for an answer.
        label: the best one.
        score: the best label's.
        prompt_tokens: of the input.
        completion_tokens: of the answer.
        ttft_s: from the request to its first token.
        finish_reason: why a generation ended.
        time: of the answer.
        request_id: of the request.

    """

    task: str
    input: str
    key_id: int | None
    model: str
    version: str | None = None
    latency_s: float
    status: int = OK
    error: str | None = None
    label: str | None = None
    score: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_s: float | None = None
    finish_reason: str | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    request_id: str = field(default_factory=request_id.get)


class EntryLog(Protocol):
    """Takes entries."""

    def put(self, entry: PredictionLogEntry) -> None:
        """Take an entry, to be written soon. Never waits, never raises; call it on the loop."""


class NoEntryLog:
    """Drops all entries: what a service has without the feature `prediction_log`."""

    def put(self, entry: PredictionLogEntry) -> None:
        """Drop it."""
