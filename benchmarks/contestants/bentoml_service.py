"""BentoML with its adaptive batching on: `@bentoml.api(batchable=True)`.

BENCH_WORKERS worker processes (`workers`) with BENCH_THREADS torch threads each. A client sends a
list of one text, as the documents of batchable endpoints have it.
"""

import os
from typing import Any

import bentoml
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = os.environ["BENCH_MODEL"]


@bentoml.service(
    workers=int(os.environ["BENCH_WORKERS"]),
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
)
class Sentiment:
    """Classifies batches of texts."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = AutoModelForSequenceClassification.from_pretrained(MODEL).eval()

    @bentoml.api(
        batchable=True, max_batch_size=int(os.environ["BENCH_BATCH"]), max_latency_ms=60_000
    )
    def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return a label and its probability for each text."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            scores, best = self.model(**inputs).logits.softmax(-1).max(-1)
        labels = self.model.config.id2label
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(best.tolist(), scores.tolist(), strict=True)
        ]
