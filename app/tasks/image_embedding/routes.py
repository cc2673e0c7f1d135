"""`/embed-image`."""

from typing import Any

import numpy as np
from fastapi import APIRouter, Depends

from app.batching.base import Scheduler
from app.core.callers import Scope
from app.engines.base import FloatArray
from app.engines.images.engine import ImageEngine
from app.errors import ImageTooLargeError, ImageUnreadableError, ServiceError
from app.http.guard import Guard
from app.http.images import FORM_ERRORS, ImagesRoute, form_of, items_of
from app.http.large_answers import LargeAnswer, fields_of, large_answer, list_of, plain
from app.http.problems import WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep
from app.models.registry import TaskKey
from app.models.schemas import MAX_NAME_CHARS
from app.services.inference import Inference
from app.tasks.image_embedding.schemas import EmbedImagesRequest, EmbedImagesResponse
from app.tasks.image_embedding.task import PATH, TASK

EMBEDDERS = TaskKey[Scheduler[ImageEngine]](TASK.kind)
router = APIRouter(
    tags=["images"], route_class=ImagesRoute, dependencies=[Depends(Guard(Scope.EMBED))]
)


def _vectors(inference: Inference[ImageEngine]) -> list[Any]:
    """Return the vectors of all images, or fail: a missing one would shift the others.

    Raises:
        ServiceError: of the first image that has none; the detail says which it is.

    """
    for number, row in enumerate(inference.rows):
        if isinstance(row, ServiceError):
            raise type(row)(f"images[{number}]: {row.detail}", headers=row.headers)
    return inference.rows


def _answer(inference: Inference[ImageEngine]) -> tuple[str, FloatArray]:
    """Return the model's name and the vectors, (images, dimensions) float32."""
    return inference.model, np.stack(_vectors(inference))


@router.post(
    PATH,
    summary="Embed images",
    responses=problems(
        *FORM_ERRORS, ImageUnreadableError, ImageTooLargeError, *WITH_KEY, *WITH_MODEL
    ),
    response_model=EmbedImagesResponse,
    openapi_extra=form_of("images", model_name={"type": "string", "maxLength": MAX_NAME_CHARS}),
)
async def embed_images(body: EmbedImagesRequest, run: RunnerDep) -> LargeAnswer:
    """Embed up to 32 images; if one can't be read, none is answered."""
    model, vectors = await run.together(
        EMBEDDERS,
        items_of(body.images),
        model_name=body.model_name,
        answer=_answer,
        charged_tokens=len(body.images),
    )
    return await large_answer(
        lambda: fields_of(
            {
                "model": model,
                "dimensions": vectors.shape[1],
                "embeddings": list_of(plain(vectors)),
            }
        ),
        values=vectors.size,
    )
