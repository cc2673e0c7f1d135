"""Tiny seeded token classifiers, and what transformers' own pipeline makes of texts with them."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tiny import SIZES, request_for, save, seeded, word_tokenizer

from app.engines.base import FloatArray, Task, TokenClassifier
from app.engines.rows import checked
from app.engines.scores import softmax
from app.engines.token_windows import TokenRow
from app.engines.torch import load as load_torch
from app.engines.torch_tokens import TorchTokenClassifier
from app.services.entities import Aggregation, spans_of

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NAMED: Mapping[str, Any] = {
    "num_labels": len(LABELS),
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: index for index, label in enumerate(LABELS)},
}
Found = list[tuple[str, int, int]]


def bert_tokens(folder: Path, tokenizer: Any = None, **fields: Any) -> Path:
    """Write a BERT that labels tokens."""
    model = seeded("BertForTokenClassification", "BertConfig", **{**SIZES, **NAMED, **fields})
    return save(folder, model, tokenizer or word_tokenizer())


def tokens_on_torch(folder: Path, **fields: Any) -> TorchTokenClassifier:
    """Load on torch."""
    engine = load_torch(request_for(folder, task=Task.NER, **fields))
    assert isinstance(engine, TorchTokenClassifier)
    return engine


def rows(engine: TokenClassifier, texts: Sequence[str]) -> list[TokenRow]:
    """Return the rows of all texts, run in one call."""
    return list(checked(engine)(engine.encode(texts)))


def rows_alone(engine: TokenClassifier, texts: Sequence[str]) -> list[TokenRow]:
    """Return the rows of texts, each run in a call of its own."""
    return [rows(engine, [text])[0] for text in texts]


def found(row: TokenRow, labels: Sequence[str], way: Aggregation) -> tuple[Found, list[float]]:
    """Return the entities of a row, as this service answers them, and their scores."""
    spans = spans_of(row, labels, way)
    return [(s.label, s.start, s.end) for s in spans], [s.score for s in spans]


class Reference:
    """transformers' own pipeline of a folder.

    Args:
        folder: of the model.
        window: tokens that it is given at most.

    """

    def __init__(self, folder: Path, *, window: int) -> None:
        self._pipe = transformers.pipeline("token-classification", str(folder), device="cpu")
        self._pipe.tokenizer.model_max_length = window
        self._text: str | None = None
        self._said: dict[str, Any] = {}

    def found(self, text: str, way: Aggregation) -> tuple[Found, list[float]]:
        """Return the entities of a text."""
        return self._entities(self._output(text), way)

    def scores(self, text: str) -> FloatArray:
        """Return the scores of a text's own tokens, (tokens, labels)."""
        output = self._output(text)
        own = output["special_tokens_mask"][0].numpy() == 0
        return softmax(output["logits"][0].float().numpy()[own])

    def aggregated(self, text: str, row: TokenRow, way: Aggregation) -> tuple[Found, list[float]]:
        """Return what the pipeline makes of logits that an engine of this service gave."""
        output = self._output(text)
        own = output["special_tokens_mask"][0].numpy() == 0
        logits = np.zeros((len(own), row.logits.shape[1]), dtype=np.float32)
        logits[own] = row.logits
        output["logits"] = torch.from_numpy(logits)[None]
        return self._entities(output, way)

    def _entities(self, output: dict[str, Any], way: Aggregation) -> tuple[Found, list[float]]:
        strategy = transformers.pipelines.token_classification.AggregationStrategy(way.value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that words are guessed by blanks
            return _read(self._pipe.postprocess([output], aggregation_strategy=strategy))

    def _output(self, text: str) -> dict[str, Any]:
        """Return what the model says of a text; kept, as each way of aggregation begins with it."""
        if self._text != text:
            (inputs,) = self._pipe.preprocess(text, is_split_into_words=False, delimiter=None)
            self._text, self._said = text, self._pipe.forward(inputs)
        return dict(self._said)


def _read(entities: Sequence[Mapping[str, Any]]) -> tuple[Found, list[float]]:
    places = [(e.get("entity_group") or e["entity"], e["start"], e["end"]) for e in entities]
    return places, [float(e["score"]) for e in entities]
