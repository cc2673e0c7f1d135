"""The row that is stored of an entry: its input is hashed, kept or dropped, as is set."""

import hashlib
from typing import Literal

from app.features.prediction_log.repository import Prediction
from app.services.prediction_log import PredictionLogEntry

InputKeeping = Literal["none", "hash", "text"]
# A chat may be a megabyte long; of a longer text the beginning is kept, and the hash of the whole.
MAX_INPUT_CHARS = 2_000


class Recorder:
    """Makes rows of entries.

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

    def __call__(self, entry: PredictionLogEntry) -> Prediction:
        """Return the row of an entry."""
        return Prediction(
            time=entry.time,
            request_id=entry.request_id,
            key_id=entry.key_id,
            task=str(entry.task),
            model=entry.model,
            version=entry.version,
            status=entry.status,
            error=entry.error,
            latency_ms=_ms(entry.latency_s),
            label=entry.label,
            score=entry.score,
            input_hash=self.hash_input(entry.input),
            input=entry.input[:MAX_INPUT_CHARS] if self._keeps == "text" else None,
            prompt_tokens=entry.prompt_tokens,
            completion_tokens=entry.completion_tokens,
            ttft_ms=None if entry.ttft_s is None else _ms(entry.ttft_s),
            finish_reason=entry.finish_reason,
        )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
