"""LitServe with its batching on: `max_batch_size`, `batch_timeout`.

BENCH_WORKERS worker processes (`workers_per_device`) with BENCH_THREADS torch threads each.
"""

import os
from typing import Any

import litserve
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = os.environ["BENCH_MODEL"]


class SentimentAPI(litserve.LitAPI):
    """Classifies batches of texts."""

    def setup(self, device: str) -> None:
        """Load the model in the worker process."""
        torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = AutoModelForSequenceClassification.from_pretrained(MODEL).to(device).eval()

    def decode_request(self, request: dict[str, Any]) -> str:
        """Take the text."""
        return str(request["text"])

    def batch(self, inputs: list[str]) -> list[str]:
        """Leave texts as they are; the tokeniser makes the tensors."""
        return inputs

    def predict(self, x: list[str]) -> list[tuple[str, float]]:
        """Return a label and its probability for each text."""
        inputs = self.tokenizer(x, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            scores, best = self.model(**inputs).logits.softmax(-1).max(-1)
        labels = self.model.config.id2label
        return [(labels[i], s) for i, s in zip(best.tolist(), scores.tolist(), strict=True)]

    def unbatch(self, output: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """Give each text its own."""
        return output

    def encode_response(self, output: tuple[str, float]) -> dict[str, Any]:
        """Answer as the others do."""
        return {"label": output[0], "score": output[1]}


if __name__ == "__main__":
    api = SentimentAPI(max_batch_size=int(os.environ["BENCH_BATCH"]), batch_timeout=0.005)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=int(os.environ["BENCH_WORKERS"])
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        log_level="warning",
        generate_client_file=False,
    )
