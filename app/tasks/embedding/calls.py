"""How a Python class calls an embedder: texts in, their vectors out."""

import numpy as np

from app.engines.python.models import Answers
from app.services.embeddings import EMBEDDERS, EmbeddingParameters, embeddings_of
from app.services.model_calls import ITEMS, CalledServices, ModelCall, texts_of


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return vectors, (texts, dimensions) float32, as `/embed` makes them without parameters."""
    inference = await services.inference.run(
        EMBEDDERS,
        texts_of(call),
        model_name=call.model,
        deadline=call.deadline,
        plan=EmbeddingParameters().plan,
    )
    if not inference.rows:
        return np.empty((0, inference.engine.dimensions), dtype=np.float32)
    return embeddings_of(inference, place=ITEMS).vectors
