"""`/embed`."""

import numpy as np
from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from app.api.auth import CallerDep, allow
from app.api.deps import DeadlineDep, EmbeddingsDep, JsonRoute, RuntimeDep
from app.api.noting import NoteDep
from app.api.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.engines.base import Task
from app.models.schemas import EmbedRequest, EmbedResponse
from app.services.keys import Scope

router = APIRouter(
    tags=["embed"], route_class=JsonRoute, dependencies=[Depends(allow(Scope.EMBED))]
)
# Seven decimals of a number under 1 are more than a float32 holds, and half as long as its repr.
DECIMALS = 7


@router.post(
    "/embed",
    summary="Embed texts",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL),
    response_model=EmbedResponse,
)
async def embed(
    asked: EmbedRequest,
    embeddings: EmbeddingsDep,
    deadline: DeadlineDep,
    caller: CallerDep,
    runtime: RuntimeDep,
    note: NoteDep,
) -> Response:
    """Embed up to 256 texts; `truncated` names those that were cut to the model's window."""
    with note.failures(Task.EMBEDDING, "\n".join(asked.texts), model=asked.model_name):
        made = await embeddings.embed(asked.texts, model_name=asked.model_name, deadline=deadline)
    origin = note.origin(made.model, version=made.version)
    note.keep(note.record.embedded(texts=asked.texts, tokens=made.tokens, origin=origin))
    await runtime.ledger.charge(caller, len(asked.texts))
    answer = {
        "model": made.model,
        "dimensions": made.dimensions,
        "embeddings": np.round(made.vectors.astype(np.float64), DECIMALS).tolist(),
        "truncated": made.truncated,
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")
