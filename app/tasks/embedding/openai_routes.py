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
from app.tasks.embedding.routes import embedded, plain

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute)


@router.post(
    "/embeddings",
    summary="Embed texts",
    responses=openai_problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    dependencies=[Depends(Guard(Scope.EMBED))],
    response_model=EmbeddingsResponse,
)
async def create_embeddings(asked: EmbeddingsRequest, run: RunnerDep) -> Response:
    """Embed up to 2048 texts; a longer one than the model's window is cut."""
    made = await embedded(run, asked.input, model_name=asked.model, fields=asked)
    written = _in_base64(made.vectors) if asked.encoding_format == "base64" else plain(made.vectors)
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(written)
        ],
        "model": made.model,
        "usage": {"prompt_tokens": made.tokens, "total_tokens": made.tokens},
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")


def _in_base64(vectors: FloatArray) -> list[str]:
    """Return each vector's little-endian float32 in base64."""
    return [base64.b64encode(vector.tobytes()).decode() for vector in vectors.astype("<f4")]
