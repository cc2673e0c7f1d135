"""Text to token ids and padded arrays, on the tokenizers library alone."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from app.engines.base import Encoded
from app.errors import EngineError

IntArray = npt.NDArray[np.int64]
# RoBERTa and its kin count positions from padding_idx + 1, so two of them are never used.
OFFSET_FAMILIES = ("roberta", "camembert", "xlm-roberta", "longformer")
POSITION_OFFSET = 2
# tokenizer_config.json says 10^30 where it means "no limit".
UNLIMITED = 1_000_000
FALLBACK_MAX_TOKENS = 512
# Without one of these transformers makes a tokenizer to which every word is unknown.
VOCABULARIES = ("vocab.*", "*.model")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or nothing where the file is missing."""
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def window(folder: Path, *, limit: int | None) -> int:
    """Return how many tokens a text may have: the least of what the model's files and we say.

    Args:
        folder: with config.json, and perhaps tokenizer_config.json and sentence_bert_config.json.
        limit: the catalogue's own `max_tokens`.

    """
    config = read_json(folder / "config.json")
    positions = config.get("max_position_embeddings")
    if positions and config.get("model_type") in OFFSET_FAMILIES:
        positions -= POSITION_OFFSET
    said = [
        limit,
        positions,
        read_json(folder / "tokenizer_config.json").get("model_max_length"),
        read_json(folder / "sentence_bert_config.json").get("max_seq_length"),
    ]
    usable = [int(n) for n in said if n and n < UNLIMITED]
    return min(usable, default=FALLBACK_MAX_TOKENS)


class TextEncoder:
    """The tokeniser of one model. Encoding releases the GIL and is safe in any thread.

    Args:
        folder: the model's.
        limit: the catalogue's own `max_tokens`.
        converted: what `save` wrote, to be read instead of the folder's own.

    """

    def __init__(
        self, folder: Path, *, limit: int | None = None, converted: Path | None = None
    ) -> None:
        self._tokenizer = self._read(folder, converted or folder / "tokenizer.json")
        self._tokenizer.no_padding()
        max_tokens = window(folder, limit=limit)
        special_tokens = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if max_tokens <= special_tokens:
            raise EngineError(f"{folder}: {max_tokens} tokens leave no room for a text")
        self._tokenizer.enable_truncation(max_length=max_tokens)
        self.max_tokens = max_tokens
        self.passage_tokens = max_tokens - special_tokens
        self._pad_id = int(read_json(folder / "config.json").get("pad_token_id") or 0)

    @staticmethod
    def _read(folder: Path, path: Path) -> Tokenizer:
        """Read tokenizer.json; older models have only a vocabulary, which transformers converts."""
        if path.is_file():
            try:
                return Tokenizer.from_file(str(path))
            except Exception as failure:  # the library raises nothing narrower
                raise EngineError(f"{path}: can't be read: {failure}") from failure
        backend = None
        if any(file for pattern in VOCABULARIES for file in folder.glob(pattern)):
            from transformers import AutoTokenizer

            converted = AutoTokenizer.from_pretrained(  # nosec B615  # a local folder
                folder, trust_remote_code=False, local_files_only=True
            )
            backend = getattr(converted, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise EngineError(f"{folder}: no tokenizer.json, and none can be made of what is there")
        return backend

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; a text longer than the model's window is cut and says so."""
        return [
            Encoded(token_ids=e.ids, is_truncated=bool(e.overflowing))
            for e in self._tokenizer.encode_batch(list(texts))
        ]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length, in characters and in order."""
        first = self._tokenizer.encode(text, add_special_tokens=False)
        # What is beyond the window: truncation can't be switched off for one call.
        return [place for part in (first, *first.overflowing) for place in part.offsets]

    def save(self, file: Path) -> None:
        """Write what reads quickly and without transformers, whatever the model came with."""
        self._tokenizer.save(str(file))

    def pad(self, batch: Sequence[Encoded], *, width: int = 0) -> tuple[IntArray, IntArray]:
        """Return token ids and attention mask, each (batch, the longest or `width`) int64."""
        columns = max(width, *(item.cost for item in batch))
        ids = np.full((len(batch), columns), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(batch), columns), dtype=np.int64)
        for row, item in enumerate(batch):
            ids[row, : item.cost] = item.token_ids
            mask[row, : item.cost] = 1
        return ids, mask
