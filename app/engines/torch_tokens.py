"""The torch engine's token classifier: labels of the tokens of texts of any length."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from app.engines.base import Activation, Encoded, FloatArray
from app.engines.folder.heads import token_labels_of
from app.engines.token_windows import TokenRow, TokenText, rows_of, windows_of
from app.engines.tokenizer import Padding, TextEncoder
from app.engines.torch_text import TorchText

# Of a call, padding included: a single text of many windows could fill the memory otherwise.
CALL_TOKENS = 8192


class TorchTokenClassifier(TorchText):
    """A token classifier, whose rows hold logits for each token."""

    activation = Activation.SOFTMAX

    def __init__(self, encoder: TextEncoder, *, torch: Any, model: Any, device: str) -> None:
        super().__init__(encoder, torch=torch, model=model, device=device)
        self.labels = token_labels_of(model.config)

    def classify_tokens(self, batch: Sequence[Encoded]) -> list[TokenRow]:
        """Return what is said of the tokens of each text."""
        return rows_of(batch, self._each_window(windows_of(batch)))

    def _rows(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return the logits of each text's windows as a line, (batch, the longest) float32."""
        texts = [item for item in batch if isinstance(item, TokenText)]
        found = iter(self._each_window(windows_of(texts)))
        lines = [np.concatenate([next(found) for _ in text.windows]).ravel() for text in texts]
        rows = np.zeros((len(lines), max(map(len, lines))), dtype=np.float32)
        for row, line in zip(rows, lines, strict=True):
            row[: len(line)] = line
        return rows

    def _each_window(self, windows: Sequence[Encoded]) -> list[FloatArray]:
        """Return the logits of each window, (its tokens, labels) float32."""
        found: dict[int, FloatArray] = {}
        is_alone = self.encoder.rules.padding is Padding.NONE
        for piece in _pieces(windows, most=0 if is_alone else CALL_TOKENS):
            items = [windows[index] for index in piece]
            logits = self._logits(items)
            for index, item, row in zip(piece, items, logits, strict=True):
                found[index] = self.encoder.unpadded(row, item)
        return [found[index] for index in range(len(windows))]

    def _logits(self, items: Sequence[Encoded]) -> FloatArray:
        """Return logits, (windows, tokens, labels) float32."""
        with self._torch.inference_mode():
            logits = self._model(**self._inputs(self.encoder.pad(items))).logits.float()
            return np.asarray(logits.cpu().numpy(), dtype=np.float32)


def _pieces(windows: Sequence[Encoded], *, most: int) -> Iterator[list[int]]:
    """Yield windows for one call each, as indices: neighbours in length, and few tokens."""
    piece: list[int] = []
    for index in sorted(range(len(windows)), key=lambda index: windows[index].cost):
        if piece and windows[index].cost * (len(piece) + 1) > most:
            yield piece
            piece = []
        piece.append(index)
    if piece:
        yield piece
