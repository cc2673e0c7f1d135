"""`/rerank`."""

from collections.abc import Sequence

from fastapi import APIRouter, Depends

from app.core.callers import Scope
from app.engines.base import Pair
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.services.ranking import RANKERS, Ranking, pairs_with, ranking_of
from app.tasks.rerank.schemas import (
    RankedDocument,
    RankedText,
    RerankRequest,
    RerankResponse,
    texts_of,
)

router = APIRouter(
    tags=["rerank"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.PREDICT))]
)


async def rank_texts(
    run: TaskRunner, query: str, texts: Sequence[str], *, model_name: str | None, field: str
) -> Ranking:
    """Rank the texts of a request of any dialect; each costs a token of the quota.

    Raises:
        ServiceError: as `TaskRunner.together`.

    """
    logged = "\n".join((query, *texts))
    return await rank_pairs(
        run, pairs_with(query, texts), model_name=model_name, field=field, logged=logged
    )


async def rank_pairs(
    run: TaskRunner, pairs: Sequence[Pair], *, model_name: str | None, field: str, logged: str
) -> Ranking:
    """Rank pairs of texts; each costs a token of the quota. Raises as `rank_texts`."""
    return await run.together(
        RANKERS,
        pairs,
        model_name=model_name,
        answer=ranking_of(field),
        charged_tokens=len(pairs),
        logged=logged,
        columns=lambda ranking: {"score": ranking.best[0][1]},
    )


def ranked(
    ranking: Ranking, texts: Sequence[str], *, top_n: int | None, shows_texts: bool
) -> list[RankedDocument]:
    """Return the best documents as they are answered."""
    return [
        RankedDocument(
            index=index,
            relevance_score=score,
            document=RankedText(text=texts[index]) if shows_texts else None,
        )
        for index, score in ranking.best[:top_n]
    ]


@router.post(
    "/rerank",
    summary="Rank documents by how well they answer a query",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL),
    response_model_exclude_none=True,
)
async def rerank(body: RerankRequest, run: RunnerDep) -> RerankResponse:
    """Rank up to 1000 documents; `truncated` names those that were cut to the model's window."""
    texts = texts_of(body.documents or body.texts or [])
    field = "documents" if body.documents else "texts"
    ranking = await rank_texts(
        run, body.query, texts, model_name=body.model_name or body.model, field=field
    )
    return RerankResponse(
        model=ranking.model,
        results=ranked(ranking, texts, top_n=body.top_n, shows_texts=body.return_documents),
        truncated=list(ranking.truncated),
    )
