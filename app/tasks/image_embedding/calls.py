"""How a Python class calls an embedder of images: files in base64 in, their vectors out."""

import numpy as np

from app.engines.python.models import Answers
from app.http.images import called_images
from app.services.model_calls import CalledServices, ModelCall, rows_of
from app.tasks.image_embedding.routes import EMBEDDERS


async def answer(call: ModelCall, services: CalledServices) -> Answers:
    """Return vectors, (images, dimensions) float32."""
    inference = await services.inference.run(
        EMBEDDERS, called_images(call), model_name=call.model, deadline=call.deadline
    )
    rows = rows_of(inference.rows)
    return np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32)
