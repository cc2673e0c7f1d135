"""`/v1/embeddings`: embedding in OpenAI's dialect."""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import APIRouter, Depends

from app.core.callers import Scope
from app.engines.base import FloatArray
from app.errors import UnsupportedFieldError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.large_answers import LargeAnswer, fields_of, large_answer, list_of, plain
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, openai_problems
from app.http.task_runner import RunnerDep
from app.services.places import place_in
from app.tasks.embedding.openai_schemas import EmbeddingsRequest, EmbeddingsResponse
from app.tasks.embedding.routes import embed_texts

Encode = Callable[[FloatArray], Iterator[list[float] | str]]
INPUT = place_in("input")
router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)


@router.post(
    "/embeddings",
    summary="Embed texts",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    dependencies=[Depends(Guard(Scope.EMBED))],
    response_model=EmbeddingsResponse,
)
async def create_embeddings(body: EmbeddingsRequest, run: RunnerDep) -> LargeAnswer:
    """Embed up to 2048 texts; a longer one than the model's window is cut."""
    embeddings = await embed_texts(run, body.input, model_name=body.model, fields=body, place=INPUT)
    body.check(embeddings.truncated)
    encode: Encode = _in_base64 if body.encoding_format == "base64" else plain
    tokens = embeddings.tokens
    return await large_answer(
        lambda: fields_of(
            {
                "object": "list",
                "data": list_of(_items(encode(embeddings.vectors))),
                "model": embeddings.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        ),
        values=embeddings.vectors.size,
    )


def _items(vectors: Iterator[list[float] | str]) -> Iterator[dict[str, Any]]:
    for index, vector in enumerate(vectors):
        yield {"object": "embedding", "index": index, "embedding": vector}


def _in_base64(vectors: FloatArray) -> Iterator[str]:
    """Yield each vector's little-endian float32 in base64."""
    for vector in vectors.astype("<f4"):
        yield base64.b64encode(vector.tobytes()).decode()
