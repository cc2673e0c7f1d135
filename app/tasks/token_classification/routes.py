"""`/ner`, and `/predict/{model_name}` of models that label tokens."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from app.core.callers import Scope
from app.engines.base import TokenClassifier
from app.errors import ModelNameConflictError, ServiceError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.large_answers import LargeAnswer, fields_of, joined, large_answer, list_of
from app.http.model_route import ModelRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.models.schemas import MAX_NAME_CHARS, FailedText
from app.services.entities import TOKEN_CLASSIFIERS, Aggregation, Spans, spans_of
from app.services.inference import Plan
from app.services.lengths import check_length, refuse
from app.tasks.token_classification.schemas import NerBatchResponse, NerRequest, NerResponse
from app.tasks.token_classification.task import TASK

MAX_LOGGED_CHARS = 256  # of the log's label, which an index of PostgreSQL bounds
AT_ONCE = 500  # entities that are encoded together
Found = NerResponse | NerBatchResponse


class TokenRoute(ModelRoute):
    """A route for models that label tokens."""

    kind = TASK.kind


OF_EACH: dict[str, Any] = {"tags": ["ner"], "dependencies": [Depends(Guard(Scope.PREDICT))]}
router = APIRouter(route_class=JsonRoute, **OF_EACH)
# The document has /predict/{model_name} once, as the classifiers' route.
named_router = APIRouter(route_class=TokenRoute, include_in_schema=False, **OF_EACH)
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL)


def plan_of(engine: TokenClassifier, aggregation: Aggregation) -> Plan:
    """Return how texts are run: what makes entities of a row."""
    return Plan(shape=lambda row: spans_of(row, engine.labels, aggregation))


def columns_of(spans: Spans) -> dict[str, Any]:
    """Return the labels that were found, for the log."""
    return {"label": ",".join(spans.found)[:MAX_LOGGED_CHARS] or None}


async def _find(body: NerRequest, run: TaskRunner, *, model_name: str | None) -> LargeAnswer:
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
        columns=columns_of,
    )
    rows = inference.rows
    values = sum(len(row) for row in rows if isinstance(row, Spans))
    if body.text is not None:
        (row,) = rows
        if isinstance(row, ServiceError):
            raise row
        return await large_answer(
            lambda: fields_of({"entities": entities_of(texts[0], row), "model": inference.model}),
            values=values,
        )
    each = zip(texts, rows, inference.names(), strict=True)
    return await large_answer(
        lambda: fields_of(
            {"model": inference.model, "results": joined(_result(*one) for one in each)}
        ),
        values=values,
    )


@router.post("/ner", summary="Find entities in texts", responses=RESPONSES, response_model=Found)
async def find_entities(body: NerRequest, run: RunnerDep) -> LargeAnswer:
    """Find the names, places and other entities of one text, or of up to 256.

    Of several, one that can't be done gets its own error and fails no other.
    """
    return await _find(body, run, model_name=body.model_name)


@named_router.post(
    "/predict/{model_name}", summary="Find entities with a named model", response_model=Found
)
async def find_entities_with(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS)], body: NerRequest, run: RunnerDep
) -> LargeAnswer:
    """Find entities with the model that the path names."""
    if body.model_name not in {None, model_name}:
        raise ModelNameConflictError
    return await _find(body, run, model_name=model_name)


def entities_of(text: str, spans: Spans) -> Iterator[bytes]:
    """Yield the entities of a text as JSON."""
    entities = (
        {
            "label": span.label,
            "score": span.score,
            "text": text[span.start : span.end],
            "start": span.start,
            "end": span.end,
        }
        for span in spans
    )
    return list_of(entities, at_once=AT_ONCE)


def _result(text: str, row: Spans | ServiceError, name: str | None) -> Iterator[bytes]:
    if isinstance(row, ServiceError):
        return iter([FailedText.of(row).model_dump_json().encode()])
    named = {} if name is None else {"prediction_id": name}
    return fields_of({"entities": entities_of(text, row), **named})
