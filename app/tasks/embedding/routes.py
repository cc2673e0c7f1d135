"""`/embed`."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from app.core.callers import Scope
from app.engines.base import FloatArray, Task
from app.errors import UnsupportedFieldError
from app.http.answer_log import AnswerLogDep
from app.http.deps import DeadlineDep, RegistryDep, RuntimeDep
from app.http.guard import AccessDep, CallerDep, Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.services.embeddings import Embeddings, EmbeddingService, Wanted
from app.tasks.embedding.schemas import EmbeddingFields, EmbedRequest, EmbedResponse

router = APIRouter(
    tags=["embed"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.EMBED))]
)
# Seven decimals of a number under 1 are more than a float32 holds, and half as long as its repr.
DECIMALS = 7


async def get_embeddings(registry: RegistryDep, runtime: RuntimeDep) -> EmbeddingService:
    """Return the embedding service over the registry in force."""
    return EmbeddingService(registry, runtime.rows)


EmbeddingsDep = Annotated[EmbeddingService, Depends(get_embeddings)]


class AccountedEmbedding:
    """Embeds texts for a route, logs it, and charges the caller."""

    def __init__(
        self,
        embeddings: EmbeddingsDep,
        deadline: DeadlineDep,
        caller: CallerDep,
        access: AccessDep,
        log: AnswerLogDep,
    ) -> None:
        self._embeddings = embeddings
        self._deadline = deadline
        self._caller = caller
        self._access = access
        self._log = log

    async def __call__(
        self, texts: Sequence[str], *, model_name: str | None, wanted: Wanted
    ) -> Embeddings:
        """Embed; raises as `EmbeddingService.embed` does."""
        log, joined = self._log, "\n".join(texts)
        async with self._access.spending(self._caller, len(texts)):
            with log.failures(Task.EMBEDDING, joined, model=model_name):
                made = await self._embeddings.embed(
                    texts, model_name=model_name, deadline=self._deadline, wanted=wanted
                )
        log.keep(
            log.entry(
                Task.EMBEDDING,
                joined,
                model=made.model,
                version=made.version,
                prompt_tokens=made.tokens,
            )
        )
        return made


EmbedDep = Annotated[AccountedEmbedding, Depends()]


def plain(vectors: FloatArray) -> list[list[float]]:
    """Return vectors as JSON has them."""
    rounded: list[list[float]] = np.round(vectors.astype(np.float64), DECIMALS).tolist()
    return rounded


def wanted_by(asked: EmbeddingFields) -> Wanted:
    """Return what a request of either dialect asks for."""
    # The prompts for the two kinds have the very names of the kinds, with every model.
    name = asked.input_type if asked.prompt_name is None else asked.prompt_name
    return Wanted(prompt_name=name, dimensions=asked.dimensions)


@router.post(
    "/embed",
    summary="Embed texts",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError),
    response_model=EmbedResponse,
)
async def embed(asked: EmbedRequest, embed_texts: EmbedDep) -> Response:
    """Embed up to 256 texts; `truncated` names those that were cut to the model's window."""
    made = await embed_texts(asked.texts, model_name=asked.model_name, wanted=wanted_by(asked))
    answer = {
        "model": made.model,
        "dimensions": made.dimensions,
        "embeddings": plain(made.vectors),
        "truncated": made.truncated,
    }
    # Up to 100,000 numbers: validating what was just made would take longer than making it.
    return Response(to_json(answer), media_type="application/json")
