"""Flask under gunicorn, the loser of the article's table.

BENCH_WORKERS processes (gunicorn's documents say 2 x cores + 1 for requests that wait; these
compute, so one for each core) with keep-alive threads (`gthread`), BENCH_THREADS torch threads.
"""

import os
from typing import Any

import torch
from flask import Flask, request
from transformers import pipeline

torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
app = Flask(__name__)
classify = pipeline("sentiment-analysis", model=os.environ["BENCH_MODEL"], truncation=True)


@app.post("/predict")
def predict() -> dict[str, Any]:
    """Classify one text."""
    text = request.get_json()["text"]
    result = classify(text)[0]
    return {"text": text, "label": result["label"], "score": result["score"]}
