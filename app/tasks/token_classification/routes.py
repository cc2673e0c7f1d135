"""`/ner`, and `/predict/{model_name}` of models that label tokens."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from app.core.callers import Scope
from app.engines.base import TokenClassifier
from app.errors import ModelNameConflictError, ServiceError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.model_route import ModelRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.models.schemas import MAX_NAME_CHARS, FailedText
from app.services.entities import (
    TOKEN_CLASSIFIERS,
    Aggregation,
    Span,
    spans_of,
)
from app.services.inference import Plan
from app.services.lengths import check_length, refuse
from app.tasks.token_classification.schemas import (
    Entities,
    Entity,
    NerBatchResponse,
    NerRequest,
    NerResponse,
)
from app.tasks.token_classification.task import TASK

MAX_LOGGED_CHARS = 256  # of the log's label, which an index of PostgreSQL bounds


class TokenRoute(ModelRoute):
    """A route for models that label tokens."""

    kind = TASK.kind


OF_EACH: dict[str, Any] = {"tags": ["ner"], "dependencies": [Depends(Guard(Scope.PREDICT))]}
router = APIRouter(route_class=JsonRoute, **OF_EACH)
# The document has /predict/{model_name} once, as the classifiers' route.
named_router = APIRouter(route_class=TokenRoute, include_in_schema=False, **OF_EACH)
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL)


def plan_of(engine: TokenClassifier, aggregation: Aggregation) -> Plan:
    """Return what makes entities of an engine's rows."""
    return Plan(shape=lambda row: spans_of(row, engine.labels, aggregation))


def _columns(spans: Sequence[Span]) -> dict[str, Any]:
    """Return the labels that were found, for the log."""
    found = ",".join(dict.fromkeys(span.label for span in spans))
    return {"label": found[:MAX_LOGGED_CHARS] or None}


async def _find(
    body: NerRequest, run: TaskRunner, *, model_name: str | None
) -> NerResponse | NerBatchResponse:
    """Find the entities of one text, or of each of several.

    Raises:
        InvalidRequestError: the one text is longer than its model takes.
        ServiceError: as `TaskRunner.each`, or that of the one text.

    """
    texts = [body.text] if body.text is not None else body.texts or []
    if body.text is not None:
        check_length(run.inference.spec(model_name, TOKEN_CLASSIFIERS), text=body.text)
    inference = await run.each(
        TOKEN_CLASSIFIERS,
        texts,
        model_name=model_name,
        plan=partial(plan_of, aggregation=Aggregation(body.aggregation)),
        refuse=refuse,
        columns=_columns,
    )
    if body.texts is not None:
        results = [_result(text, row) for text, row in zip(texts, inference.rows, strict=True)]
        return NerBatchResponse(model=inference.model, results=results)
    (row,) = inference.rows
    if isinstance(row, ServiceError):
        raise row
    return NerResponse(model=inference.model, entities=entities_of(texts[0], row))


@router.post("/ner", summary="Find entities in texts", responses=RESPONSES)
async def find_entities(body: NerRequest, run: RunnerDep) -> NerResponse | NerBatchResponse:
    """Find the names, places and other entities of one text, or of up to 256.

    Of several, one that can't be done gets its own error and fails no other.
    """
    return await _find(body, run, model_name=body.model_name)


@named_router.post("/predict/{model_name}", summary="Find entities with a named model")
async def find_entities_with(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS)], body: NerRequest, run: RunnerDep
) -> NerResponse | NerBatchResponse:
    """Find entities with the model that the path names."""
    if body.model_name not in {None, model_name}:
        raise ModelNameConflictError
    return await _find(body, run, model_name=model_name)


def entities_of(text: str, spans: Sequence[Span]) -> list[Entity]:
    """Return entities as they are answered."""
    return [
        Entity(
            label=span.label,
            score=span.score,
            text=text[span.start : span.end],
            start=span.start,
            end=span.end,
        )
        for span in spans
    ]


def _result(text: str, row: Sequence[Span] | ServiceError) -> Entities | FailedText:
    if isinstance(row, ServiceError):
        return FailedText.of(row)
    return Entities(entities=entities_of(text, row))
