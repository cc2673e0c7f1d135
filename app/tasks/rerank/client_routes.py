"""`/v1/rerank`, `/v2/rerank`, `/v1/score`: reranking as clients of Jina, Cohere and vLLM ask."""

import time

from fastapi import APIRouter, Depends

from app.core.callers import Scope
from app.core.logs import request_id
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, openai_problems, problems
from app.http.task_runner import RunnerDep
from app.tasks.rerank.client_schemas import (
    CohereRerankRequest,
    CohereRerankResponse,
    JinaRerankRequest,
    JinaRerankResponse,
    RerankUsage,
)
from app.tasks.rerank.routes import rank_pairs, rank_texts, ranked
from app.tasks.rerank.schemas import texts_of
from app.tasks.rerank.score_schemas import ScoreRequest, ScoreResponse, TextScore

router = APIRouter(
    tags=["rerank"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.PREDICT))]
)
ERRORS = (*WITH_BODY, *WITH_KEY, *WITH_MODEL)
FIELD = "documents"


@router.post(
    "/v1/rerank",
    summary="Rank documents, as Jina's clients ask for it",
    responses=openai_problems(*ERRORS),
    response_model_exclude_none=True,
)
async def rerank_for_jina(body: JinaRerankRequest, run: RunnerDep) -> JinaRerankResponse:
    """Rank up to 1000 documents."""
    texts = texts_of(body.documents)
    ranking = await rank_texts(run, body.query, texts, model_name=body.model, field=FIELD)
    body.check(ranking.truncated)
    return JinaRerankResponse(
        model=ranking.model,
        usage=RerankUsage(prompt_tokens=ranking.tokens, total_tokens=ranking.tokens),
        results=ranked(ranking, texts, top_n=body.top_n, shows_texts=body.return_documents),
    )


@router.post(
    "/v2/rerank",
    summary="Rank documents, as Cohere's clients ask for it",
    responses=problems(*ERRORS),
    response_model_exclude_none=True,
)
async def rerank_for_cohere(body: CohereRerankRequest, run: RunnerDep) -> CohereRerankResponse:
    """Rank up to 1000 documents."""
    texts = texts_of(body.documents)
    ranking = await rank_texts(run, body.query, texts, model_name=body.model, field=FIELD)
    body.check(ranking.truncated)
    body.check_longest(ranking.longest)
    return CohereRerankResponse(
        id=request_id.get(),
        results=ranked(ranking, texts, top_n=body.top_n, shows_texts=body.return_documents),
    )


@router.post(
    "/v1/score",
    summary="Score pairs of texts, as vLLM's clients ask for it",
    responses=openai_problems(*ERRORS),
)
async def score_pairs(body: ScoreRequest, run: RunnerDep) -> ScoreResponse:
    """Score up to 1000 pairs of texts."""
    logged = "\n".join((*body.text_1, *body.text_2))
    ranking = await rank_pairs(
        run, body.pairs(), model_name=body.model, field="text_2", logged=logged
    )
    body.check(ranking.truncated)
    return ScoreResponse(
        id=f"score-{request_id.get()}",
        created=int(time.time()),
        model=ranking.model,
        data=[TextScore(index=index, score=score) for index, score in sorted(ranking.best)],
        usage=RerankUsage(prompt_tokens=ranking.tokens, total_tokens=ranking.tokens),
    )
