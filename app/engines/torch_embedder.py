"""The torch engine's embedder: an encoder, and the modules behind it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.engines.base import Encoded, FloatArray
from app.engines.folder.modules import Step, names_of
from app.engines.pooling import make_head
from app.engines.tokenizer import TextEncoder
from app.engines.torch_text import TorchText
from app.engines.vector_rules import VectorRules, edition_of


class TorchEmbedder(TorchText):
    """An encoder and the modules behind it, as sentence-transformers models are used.

    Args:
        encoder, torch, model, device: as of a classifier.
        steps: what follows the model, of `read_modules`.
        rules: the model's, of `read_vector_rules`.

    """

    def __init__(  # as a classifier, and the steps
        self,
        encoder: TextEncoder,
        *,
        torch: Any,
        model: Any,
        device: str,
        steps: Sequence[Step],
        rules: VectorRules,
    ) -> None:
        super().__init__(encoder, torch=torch, model=model, device=device)
        self.head = make_head(torch, steps, width=int(model.config.hidden_size)).to(device)
        self.dimensions = int(self.head.dimensions)
        self.passage_tokens = encoder.passage_tokens
        edition = edition_of(
            rules,
            width=self.dimensions,
            steps=names_of(steps),
            leaves_prompt_out=encoder.rules.leaves_prompt_out,
            lowers_case=encoder.rules.lowers_case,
        )
        self.vector_rules = dataclasses.replace(rules, edition=edition)

    def encode(self, texts: Sequence[str], prompt: str = "") -> Sequence[Encoded]:
        """Tokenise texts with a prompt before each; too long a text is cut and says so."""
        return self.encoder.encode(texts, prompt)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Return the place of each token in a text of any length."""
        return self.encoder.offsets(text)

    def embed(self, batch: Sequence[Encoded]) -> FloatArray:
        """Return vectors, (batch, dimensions) float32; of length 1 if the model's own are."""
        return self._each(batch, self._embed)

    def _rows(self, batch: Sequence[Encoded]) -> FloatArray:
        return self.embed(batch)

    def _embed(self, batch: Sequence[Encoded]) -> FloatArray:
        arrays = self.encoder.pad(batch)
        # Pooling needs the mask, whether the model takes it or not; and its own where prompts
        # are left out.
        mask = self._torch.from_numpy(arrays["attention_mask"]).to(self.device)
        own = arrays.get("pooling_mask")
        pooled = mask if own is None else self._torch.from_numpy(own).to(self.device)
        with self._torch.inference_mode():
            hidden = self._model(**self._inputs(arrays)).last_hidden_state.float()
            vectors = self.head(hidden, mask, pooled)
            if self.vector_rules.is_unit:
                vectors = self._torch.nn.functional.normalize(vectors, dim=-1)
            return np.asarray(vectors.cpu().numpy(), dtype=np.float32)
