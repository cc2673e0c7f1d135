"""What is stored of an input: nothing, a hash, or the text too."""

import hashlib
from typing import Literal

from app.services.prediction_log import PredictionLogEntry

InputKeeping = Literal["none", "hash", "text"]
# A chat may be a megabyte long: the text is cut, the hash is of the whole.
MAX_INPUT_CHARS = 2_000


class InputRedactor:
    """Removes from an entry what isn't kept of its input.

    Args:
        keeps: what is kept: nothing, a SHA-256, or that and the text.

    """

    def __init__(self, keeps: InputKeeping) -> None:
        self._keeps = keeps

    def hash_input(self, text: str | None) -> str | None:
        """Return the SHA-256 of a text in hexadecimal; None if nothing is kept of inputs."""
        if self._keeps == "none" or text is None:
            return None
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def __call__(self, entry: PredictionLogEntry) -> PredictionLogEntry:
        """Leave in the entry what is kept of its input, and return it.

        The entry itself is changed: a copy takes five times as long, and there is one a text.
        """
        text = entry.input
        entry.input_hash = self.hash_input(text)
        entry.input = text[:MAX_INPUT_CHARS] if text and self._keeps == "text" else None
        return entry
