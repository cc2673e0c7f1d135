"""Tiny seeded classifiers of any architecture, saved as folders, and what transformers answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from app.engines.base import (
    Classifier,
    Embedder,
    Encoded,
    EngineRequest,
    FloatArray,
    OpenVinoOptions,
    Task,
    TextOrPair,
)
from app.engines.rows import checked
from app.engines.torch import TorchClassifier
from app.engines.torch import load as load_torch

WORDS = """[PAD] [UNK] [CLS] [SEP] [MASK] a the film cat dog was is it not good bad great dull very
    long short warm cold and but . , ! ?""".split()  # noqa: SIM905  # strings in quotes read worse
SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "num_labels": 3,
}
# Of an NLI model, whose label of entailment is neither the first nor the last.
NLI = {
    "id2label": {0: "contradiction", 1: "ENTAILMENT", 2: "neutral"},
    "label2id": {"contradiction": 0, "ENTAILMENT": 1, "neutral": 2},
}
TEXTS = (
    "good film",
    "the cat is long , the dog is short , and it was very good !",
    "a",
    "bad [SEP] film [PAD]",
    "it was not very good . " * 20,
)


def word_tokenizer(*, special: bool = True, **fields: Any) -> Any:
    """Return a tokenizer of whole words, which is what its tokenizer.json says."""
    made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if special:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
    named = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    fields = {f"{name}_token": token for name, token in named.items()} | fields
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **fields)


def seeded(model_class: str, config_class: str, **fields: Any) -> Any:
    """Return a model with weights that make texts differ, the same ones each time."""
    config = getattr(transformers, config_class)(**fields)
    torch.manual_seed(7)
    model = getattr(transformers, model_class)(config).eval()
    torch.manual_seed(8)
    for name, weights in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weights, std=0.2)
    return model


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write both as transformers does."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def bert(folder: Path, tokenizer: Any = None, **fields: Any) -> Path:
    """Write a BERT that classifies."""
    model = seeded("BertForSequenceClassification", "BertConfig", **SIZES | fields)
    return save(folder, model, tokenizer or word_tokenizer())


def edit(path: Path, **fields: Any) -> None:
    """Change a JSON file's fields; None removes one."""
    content = (json.loads(path.read_text()) if path.exists() else {}) | fields
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def request_for(folder: Path, **fields: Any) -> EngineRequest:
    """Return the request for a classifier on the CPU."""
    given: dict[str, Any] = {"name": "tiny", "task": Task.CLASSIFICATION, "engine": "torch"}
    options = OpenVinoOptions(cache=folder.parent / "converted", cores=2, calls=2)
    return EngineRequest(**given | fields, folder=folder, openvino=options, device="cpu")


def on_torch(folder: Path, **fields: Any) -> TorchClassifier:
    """Load on torch."""
    engine = load_torch(request_for(folder, **fields))
    assert isinstance(engine, TorchClassifier)
    return engine


# Short, types, special tokens as text, both beyond the window, each of them beyond it, scripts.
PAIRS = (
    (TEXTS[0], TEXTS[1]),
    (TEXTS[1], TEXTS[0]),
    (TEXTS[3], TEXTS[2]),
    (TEXTS[4], TEXTS[4]),
    (TEXTS[0], TEXTS[4]),
    (TEXTS[4], TEXTS[0]),
    ("Café NOËL  我喜欢", "🤗 кино\u200b the film"),
)


def pipeline_rows(folder: Path, texts: Sequence[TextOrPair], *, window: int) -> FloatArray:
    """Return what transformers' own pipeline answers, text by text or pair by pair."""
    pipe = transformers.pipeline("text-classification", str(folder), device="cpu", top_k=None)
    pipe.tokenizer.model_max_length = window
    rows = []
    for text in texts:
        given = text if isinstance(text, str) else {"text": text[0], "text_pair": text[1]}
        answer = pipe(given, truncation=True)
        answer = answer[0] if isinstance(answer[0], list) else answer
        scores = {one["label"]: one["score"] for one in answer}
        rows.append([scores[label] for label in pipe.model.config.id2label.values()])
    return np.array(rows, dtype=np.float32)


def _rows(engine: Classifier | Embedder, items: Sequence[Encoded]) -> FloatArray:
    return checked(engine)(items)


def alone(engine: Any, texts: Sequence[TextOrPair], *prompt: str) -> FloatArray:
    """Return the scores, or the vector, of each text in a call of its own."""
    items = engine.encode(texts, *prompt)
    rows: FloatArray = np.concatenate([_rows(engine, [item]) for item in items])
    return rows


def together(engine: Any, texts: Sequence[TextOrPair], *prompt: str) -> FloatArray:
    """Return the scores, or the vectors, of all texts in one call."""
    return _rows(engine, engine.encode(texts, *prompt))
