"""`/embed`."""

from collections.abc import Sequence

import numpy as np
from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from app.core.callers import Scope
from app.engines.base import FloatArray
from app.errors import UnsupportedFieldError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.services.embeddings import EMBEDDERS, EmbeddingParameters, Embeddings, embeddings_of
from app.tasks.embedding.schemas import EmbeddingFields, EmbedRequest, EmbedResponse

router = APIRouter(
    tags=["embed"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.EMBED))]
)
# Seven decimals of a number under 1 are more than a float32 has, and half as long as its repr.
DECIMALS = 7


def plain(vectors: FloatArray) -> list[list[float]]:
    """Return vectors as lists of numbers."""
    rounded: list[list[float]] = np.round(vectors.astype(np.float64), DECIMALS).tolist()
    return rounded


async def embed_texts(
    run: TaskRunner, texts: Sequence[str], *, model_name: str | None, fields: EmbeddingFields
) -> Embeddings:
    """Embed the texts of a request of either dialect; a text costs a token of the quota.

    Raises:
        ServiceError: as `TaskRunner.together`.

    """
    # With every model the prompts for the two input types are called as the types.
    name = fields.input_type if fields.prompt_name is None else fields.prompt_name
    return await run.together(
        EMBEDDERS,
        texts,
        model_name=model_name,
        answer=embeddings_of,
        plan=EmbeddingParameters(prompt_name=name, dimensions=fields.dimensions).plan,
        charged_tokens=len(texts),
    )


@router.post(
    "/embed",
    summary="Embed texts",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    response_model=EmbedResponse,
)
async def embed(body: EmbedRequest, run: RunnerDep) -> Response:
    """Embed up to 256 texts; `truncated` names those that were cut to the model's window."""
    embeddings = await embed_texts(run, body.texts, model_name=body.model_name, fields=body)
    answer = {
        "model": embeddings.model,
        "dimensions": embeddings.dimensions,
        "embeddings": plain(embeddings.vectors),
        "truncated": embeddings.truncated,
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")
