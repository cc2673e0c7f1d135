"""What a classifier and an embedder on torch share: tokeniser, device, padding."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from app.engines.base import Encoded, FloatArray
from app.engines.inputs import inputs_of
from app.engines.padding import MOST, PROBES, choose_padding
from app.engines.tokenizer import IntArray, Padding, TextEncoder


class TorchText(ABC):
    """What the classifier and the embedder share: tokeniser, device, forward."""

    kind = "torch"
    tokenises_natively = True  # see batching/tokenising.py

    def __init__(self, encoder: TextEncoder, *, torch: Any, model: Any, device: str) -> None:
        self.device = device
        self.encoder = encoder
        self.max_tokens = encoder.max_tokens
        self._torch = torch
        self._model = model.to(device)

    def encode(self, texts: Sequence[str]) -> Sequence[Encoded]:
        """Tokenise; a text longer than the model's window is cut and says so."""
        return self.encoder.encode(texts)

    @abstractmethod
    def _rows(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return the model's output for each text, (batch, columns) float32."""

    @property
    def module(self) -> Any:
        """The torch module with the adapter merged in, for conversion."""
        return self._model

    def close(self) -> None:
        """Drop the weights."""
        self._model = None
        self._torch.cuda.empty_cache()  # does nothing where CUDA isn't used

    def find_padding(self) -> None:
        """Find the padding with which texts in a batch are answered as they are alone.

        Raises:
            EngineError: the model's answers to one text vary, or aren't numbers.

        """

        def run(items: Sequence[Encoded], padding: Padding) -> FloatArray:
            self.encoder.rules = dataclasses.replace(self.encoder.rules, padding=padding)
            return self._rows(items)

        most = MOST["float32" if self._model.dtype is self._torch.float32 else "half"]
        first = self.encoder.rules.padding
        padding_found = choose_padding(run, self._probes(), most=most, first=first)
        self.encoder.rules = dataclasses.replace(self.encoder.rules, padding=padding_found)

    def _probes(self) -> list[Encoded]:
        """Return items of different lengths."""
        return list(self.encode(PROBES))

    def _each(
        self, batch: Sequence[Encoded], run: Callable[[Sequence[Encoded]], FloatArray]
    ) -> FloatArray:
        """Run a batch in one call, or text by text where the model can't be given padding."""
        if self.encoder.rules.padding is Padding.NONE:
            return np.concatenate([run([item]) for item in batch])
        return run(batch)

    def _inputs(self, arrays: Mapping[str, IntArray]) -> dict[str, Any]:
        """Return the arguments of `forward` for a padded batch, on the device."""
        inputs = inputs_of(self._torch, self._model, self.encoder.rules, arrays)
        is_tensor = self._torch.is_tensor
        return {name: a.to(self.device) if is_tensor(a) else a for name, a in inputs.items()}
