"""MLServer with its adaptive batching on: `max_batch_size`, `max_batch_time`.

One process: its worker processes (`parallel_workers`) die at start on current dependencies, so it
is 0. BENCH_THREADS torch threads.
"""

import asyncio
import os

import torch
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from transformers import AutoModelForSequenceClassification, AutoTokenizer

MODEL = os.environ["BENCH_MODEL"]


class SentimentRuntime(MLModel):
    """Classifies batches of texts."""

    async def load(self) -> bool:
        """Load the model."""
        torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
        self.tokenizer = AutoTokenizer.from_pretrained(MODEL)
        self.model = AutoModelForSequenceClassification.from_pretrained(MODEL).eval()
        return True

    def classify(self, payload: InferenceRequest) -> InferenceResponse:
        """Return a label and its probability for each text of a (merged) request."""
        texts = StringCodec.decode_input(payload.inputs[0])
        inputs = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            scores, best = self.model(**inputs).logits.softmax(-1).max(-1)
        labels = [self.model.config.id2label[index] for index in best.tolist()]
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                StringCodec.encode_output("label", labels),
                NumpyCodec.encode_output("score", scores.numpy().reshape(-1, 1)),
            ],
        )

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run a batch in a thread, so that the server goes on collecting the next."""
        return await asyncio.to_thread(self.classify, payload)
