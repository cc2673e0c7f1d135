"""What the prediction log says of an answer: one row for a text, a request for vectors, a chat."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from app.core.logs import request_id
from app.db.predictions import Prediction
from app.engines.base import Generation, Message, Task
from app.errors import ServiceError
from app.services.inference import Prediction as Classification

InputKeeping = Literal["none", "hash", "text"]
# A chat may be a megabyte long; of a longer text the beginning is kept, and the hash of the whole.
MAX_INPUT_CHARS = 2_000
OK = 200
# nginx's number for "the client closed the connection", as in the request log.
CLIENT_LEFT = 499


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Whose answer it is: the caller's key, the model, and how long it took.

    For a request that failed before a model was found, `model` is the name that was asked for.
    """

    key_id: int | None
    model: str
    version: str | None = None
    latency_s: float


class Recorder:
    """Makes rows of answers, with the id of the current request.

    Args:
        keeps: what is kept of inputs: nothing, a SHA-256, or that and the text.

    """

    def __init__(self, keeps: InputKeeping) -> None:
        self._keeps = keeps

    def hash_input(self, text: str) -> str | None:
        """Return the SHA-256 of a text in hexadecimal; None where inputs leave no trace."""
        if self._keeps == "none":
            return None
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def classified(
        self, made: Classification | ServiceError, *, text: str, origin: Origin
    ) -> Prediction:
        """Return the row of one text and its label, or its error."""
        if isinstance(made, ServiceError):
            return self.failed(made, task=Task.CLASSIFICATION, text=text, origin=origin)
        return self._row(
            Task.CLASSIFICATION, text, origin, status=OK, label=made.label, score=made.score
        )

    def classified_batch(
        self,
        made: Sequence[Classification | ServiceError],
        *,
        texts: Sequence[str],
        origin: Origin,
    ) -> list[Prediction]:
        """Return a row for each text; all have the request's latency."""
        pairs = zip(made, texts, strict=True)
        return [self.classified(one, text=text, origin=origin) for one, text in pairs]

    def embedded(self, *, texts: Sequence[str], tokens: int, origin: Origin) -> Prediction:
        """Return the one row of a request for vectors; its input is all texts, a line each."""
        text = "\n".join(texts)
        return self._row(Task.EMBEDDING, text, origin, status=OK, prompt_tokens=tokens)

    def chatted(
        self,
        end: Generation | ServiceError | None,
        *,
        messages: Sequence[Message],
        ttft_s: float | None,
        origin: Origin,
    ) -> Prediction:
        """Return the row of a chat; its input is the last message. No end: the client left."""
        text = messages[-1].content
        ttft = {"ttft_ms": None if ttft_s is None else _ms(ttft_s)}
        if end is None:
            return self._row(
                Task.CHAT, text, origin, status=CLIENT_LEFT, error="client_left", **ttft
            )
        if isinstance(end, ServiceError):
            return self.failed(end, task=Task.CHAT, text=text, origin=origin, **ttft)
        usage = end.usage
        return self._row(
            Task.CHAT,
            text,
            origin,
            status=OK,
            finish_reason=end.finish_reason,
            prompt_tokens=usage.prompt_tokens if usage else None,
            completion_tokens=usage.completion_tokens if usage else None,
            **ttft,
        )

    def failed(
        self, error: ServiceError, *, task: Task, text: str, origin: Origin, **said: float | None
    ) -> Prediction:
        """Return the row of a request that was answered with an error, as its status and code."""
        return self._row(task, text, origin, status=error.status, error=error.code, **said)

    def _row(self, task: Task, text: str, origin: Origin, **said: Any) -> Prediction:  # noqa: ANN401
        return Prediction(
            time=datetime.now(UTC),
            request_id=request_id.get(),
            key_id=origin.key_id,
            task=task.value,
            model=origin.model,
            version=origin.version,
            latency_ms=_ms(origin.latency_s),
            input_hash=self.hash_input(text),
            input=text[:MAX_INPUT_CHARS] if self._keeps == "text" else None,
            **said,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
