"""The endpoint of the article that this service follows: a pipeline in `run_in_executor`.

One uvicorn worker, as printed. BENCH_THREADS is what torch may use for one call: the article sets
nothing, which means both cores for each of the default executor's 6 threads.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel, Field
from transformers import pipeline

models: dict[str, Any] = {}


class PredictionRequest(BaseModel):
    """A text to classify."""

    text: str = Field(min_length=1, max_length=2000)


class PredictionResponse(BaseModel):
    """The text, its label and the label's probability."""

    text: str
    label: str
    score: float


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Load the model once."""
    torch.set_num_threads(int(os.environ["BENCH_THREADS"]))
    models["sentiment"] = pipeline(
        "sentiment-analysis", model=os.environ["BENCH_MODEL"], truncation=True
    )
    yield
    models.clear()


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
async def predict(request: PredictionRequest) -> PredictionResponse:
    """Classify one text in the default executor."""
    loop = asyncio.get_running_loop()
    result = await loop.run_in_executor(None, lambda: models["sentiment"](request.text)[0])
    return PredictionResponse(text=request.text, label=result["label"], score=result["score"])
