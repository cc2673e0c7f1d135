"""`/v1/embeddings`: embedding in OpenAI's dialect."""

import base64

from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from app.core.callers import Scope
from app.engines.base import FloatArray
from app.errors import (
    UnsupportedFieldError,
)
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, openai_problems
from app.http.task_runner import RunnerDep
from app.tasks.embedding.openai_schemas import EmbeddingsRequest, EmbeddingsResponse
from app.tasks.embedding.routes import embed_texts, plain

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)


@router.post(
    "/embeddings",
    summary="Embed texts",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    dependencies=[Depends(Guard(Scope.EMBED))],
    response_model=EmbeddingsResponse,
)
async def create_embeddings(body: EmbeddingsRequest, run: RunnerDep) -> Response:
    """Embed up to 2048 texts; a longer one than the model's window is cut."""
    embeddings = await embed_texts(run, body.input, model_name=body.model, fields=body)
    encode = _in_base64 if body.encoding_format == "base64" else plain
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(encode(embeddings.vectors))
        ],
        "model": embeddings.model,
        "usage": {"prompt_tokens": embeddings.tokens, "total_tokens": embeddings.tokens},
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")


def _in_base64(vectors: FloatArray) -> list[str]:
    """Return each vector's little-endian float32 in base64."""
    return [base64.b64encode(vector.tobytes()).decode() for vector in vectors.astype("<f4")]
