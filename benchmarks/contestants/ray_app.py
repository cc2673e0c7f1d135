"""Ray Serve with its batching on: `@serve.batch`, and its documented throughput mode.

BENCH_WORKERS replicas with BENCH_THREADS torch threads each.
"""

import asyncio
import os
from typing import Any

import ray
import torch
from ray import serve
from starlette.requests import Request
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = os.environ["BENCH_MODEL"]
WORKERS = int(os.environ["BENCH_WORKERS"])
THREADS = int(os.environ["BENCH_THREADS"])
BATCH = int(os.environ["BENCH_BATCH"])


@serve.deployment(
    num_replicas=WORKERS,
    max_ongoing_requests=256,  # a queue like the others'; the default of 5 would never fill a batch
    ray_actor_options={"num_cpus": 0.5},
    logging_config={"enable_access_log": False},
)
class Sentiment:
    """Classifies batches of texts."""

    def __init__(self) -> None:
        torch.set_num_threads(THREADS)
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = AutoModelForSequenceClassification.from_pretrained(MODEL).eval()

    def classify(self, texts: list[str]) -> list[dict[str, Any]]:
        """Return a label and its probability for each text."""
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            scores, best = self.model(**inputs).logits.softmax(-1).max(-1)
        labels = self.model.config.id2label
        return [
            {"label": labels[index], "score": score}
            for index, score in zip(best.tolist(), scores.tolist(), strict=True)
        ]

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=0.005)
    async def predict(self, texts: list[str]) -> list[dict[str, Any]]:
        """Run a batch in a thread, so that the replica goes on collecting the next."""
        return await asyncio.to_thread(self.classify, texts)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """Take the text out of the request."""
        found: dict[str, Any] = await self.predict((await request.json())["text"])
        return found


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="warning")
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])})
    serve.run(Sentiment.bind(), route_prefix="/predict", blocking=True)
