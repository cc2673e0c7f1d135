"""`/embed`."""

import numpy as np
from fastapi import APIRouter, Response
from pydantic_core import to_json

from app.api.deps import DeadlineDep, EmbeddingsDep, JsonRoute
from app.api.problems import WITH_BODY, WITH_MODEL, problems
from app.models.schemas import EmbedRequest, EmbedResponse

router = APIRouter(tags=["embed"], route_class=JsonRoute)
# Seven decimals of a number under 1 are more than a float32 holds, and half as long as its repr.
DECIMALS = 7


@router.post(
    "/embed",
    summary="Embed texts",
    responses=problems(*WITH_BODY, *WITH_MODEL),
    response_model=EmbedResponse,
)
async def embed(asked: EmbedRequest, embeddings: EmbeddingsDep, deadline: DeadlineDep) -> Response:
    """Embed up to 256 texts; `truncated` names those that were cut to the model's window."""
    made = await embeddings.embed(asked.texts, model_name=asked.model_name, deadline=deadline)
    answer = {
        "model": made.model,
        "dimensions": made.dimensions,
        "embeddings": np.round(made.vectors.astype(np.float64), DECIMALS).tolist(),
        "truncated": made.truncated,
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")
