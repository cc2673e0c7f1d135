"""The route `/search`."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic_core import to_json

from app.core.callers import Scope
from app.errors import DatabaseUnavailableError
from app.features.documents.deps import CollectionDep, PartDep
from app.features.documents.search import SearchService
from app.features.documents.search_schemas import SearchRequest, SearchResponse
from app.features.documents.vectors.base import Hit
from app.features.documents.vectors.filters import Filter, OneOf, Range
from app.http.deps import DeadlineDep, InferenceDep, RuntimeDep
from app.http.guard import AccessDep, CallerDep, Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems

router = APIRouter(
    tags=["search"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.DOCUMENTS))]
)
# The precision of a float32 near to 1.
DECIMALS = 6


async def get_search(inference: InferenceDep, runtime: RuntimeDep, part: PartDep) -> SearchService:
    """Return the search service."""
    return SearchService(
        inference, part.index, metrics=part.metrics, service_metrics=runtime.metrics
    )


SearchDep = Annotated[SearchService, Depends(get_search)]


@router.post(
    "/search",
    summary="Search documents",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, DatabaseUnavailableError),
    response_model=SearchResponse,
)
async def search(
    body: SearchRequest,
    searches: SearchDep,
    scope: CollectionDep,
    deadline: DeadlineDep,
    caller: CallerDep,
    access: AccessDep,
) -> Response:
    """Find the documents with the passages that are nearest to the query, the best first.

    A document is found once it was embedded; its results say which passage is the nearest. With
    `rerank` more documents are found, and a second model puts them in order.
    """
    # The query is embedded, and then read with each candidate.
    charged = 1 if body.rerank is None else 1 + body.found
    async with access.spending(caller, charged) as charge:
        hits = await searches.search(
            body.query,
            top_k=body.found,
            filter=_filter(body.filter),
            model_name=body.model_name,
            scope=scope,
            deadline=deadline,
        )
        if body.rerank is not None:
            order = await searches.rank(body.query, hits, model_name=body.rerank, deadline=deadline)
            best = [_result(hits[index], score) for index, score in order[: body.top_k]]
            if len(hits) < body.found:
                await charge.settle(1 + len(hits))
        else:
            best = [_result(hit) for hit in hits]
    answer = {"results": best}
    # Up to a hundred long texts: validating what was just read would take longer than reading it.
    return Response(
        to_json(answer), media_type="application/json", headers={"Cache-Control": "no-store"}
    )


def _filter(fields: Mapping[str, Any]) -> Filter:
    """Return a validated filter as conditions."""
    conditions: list[OneOf | Range] = []
    for name, condition in fields.items():
        if not isinstance(condition, dict):
            conditions.append(OneOf(name, (condition,)))
        elif "in" in condition:
            conditions.append(OneOf(name, tuple(condition["in"])))
        else:
            conditions.append(Range(name, condition))
    return conditions


def _result(hit: Hit, relevance: float | None = None) -> dict[str, Any]:
    ranked = {} if relevance is None else {"relevance_score": relevance}
    return {
        "id": hit.id,
        "score": round(hit.score, DECIMALS),
        **ranked,
        "text": hit.text,
        "metadata": hit.metadata,
        "passage": {"text": hit.text[hit.start : hit.end], "start": hit.start, "end": hit.end},
    }
