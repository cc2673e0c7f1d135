"""`/similarity`: how close texts are to one, by an embedder."""

import numpy as np
from fastapi import APIRouter, Depends

from app.core.callers import Scope
from app.engines.base import FloatArray
from app.errors import UnsupportedFieldError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep
from app.tasks.embedding.routes import embed_texts
from app.tasks.embedding.schemas import SimilarityRequest, SimilarityResponse

router = APIRouter(
    tags=["embed"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.EMBED))]
)


def _place_of(index: int) -> str:
    """Return where a body has a text: the source is run before the others."""
    return f"texts[{index - 1}]" if index else "source"


def cosines(vectors: FloatArray) -> list[float]:
    """Return the cosine of the first vector and each other, of (texts, dimensions)."""
    # In float64: a text compared with itself is 1, and not a little more.
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    found: list[float] = np.clip(exact[1:] @ exact[0], -1, 1).tolist()
    return found


@router.post(
    "/similarity",
    summary="Compare texts with one",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
)
async def compare_texts(body: SimilarityRequest, run: RunnerDep) -> SimilarityResponse:
    """Return the cosine of the source's vector and that of each of up to 256 texts."""
    texts = [body.source, *body.texts]
    found = await embed_texts(run, texts, model_name=body.model_name, fields=body, place=_place_of)
    return SimilarityResponse(
        model=found.model,
        scores=cosines(found.vectors),
        source_truncated=0 in found.truncated,
        truncated=[place - 1 for place in found.truncated if place],
    )
