"""`/predict`, `/predict/{model_name}` and `/predict-batch`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from app.core.callers import Scope
from app.engines.base import Classifier, TextOrPair, is_regression, needs_pairs, takes_pairs
from app.errors import (
    InvalidRequestError,
    ModelNameConflictError,
    ServiceError,
    UnsupportedFieldError,
)
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.models.schemas import (
    MAX_NAME_CHARS,
    REGRESSION,
    FailedText,
    LabelScore,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    ProblemType,
    TextResult,
)
from app.services.inference import Inference, Plan
from app.services.lengths import check_length, refuse
from app.tasks.classification.labels import CLASSIFIERS, Classification

router = APIRouter(
    tags=["predict"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.PREDICT))]
)
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, UnsupportedFieldError)
NO_PAIRS = "This model takes single texts."
NEEDS_PAIRS = "This model needs pairs of texts."


def plan_of(field: str, *, has_pairs: bool) -> Callable[[Classifier], Plan]:
    """Return what plans texts or pairs; the field is where a body has the second texts."""

    def plan(engine: Classifier) -> Plan:
        if has_pairs and not takes_pairs(engine):
            raise UnsupportedFieldError(field, detail=NO_PAIRS)
        if needs_pairs(engine) and not has_pairs:
            missing = {"loc": ["body", field], "msg": NEEDS_PAIRS, "type": "missing"}
            raise InvalidRequestError([missing])
        return Plan(shape=lambda scores: Classification.of(scores, engine.labels))

    return plan


def columns_of(result: Classification) -> dict[str, Any]:
    """Return what the log's entry says of a text."""
    return {"label": result.label, "score": result.score}


def _problem_type(inference: Inference[Classifier]) -> ProblemType:
    return REGRESSION if is_regression(inference.engine) else None


async def _predict(
    body: PredictRequest, run: TaskRunner, *, model_name: str | None
) -> PredictResponse:
    """Classify one text.

    Raises:
        InvalidRequestError: it is longer than its model takes, or lacks its pair.
        UnsupportedFieldError: the model takes no pairs.
        ServiceError: as `TaskRunner.each`, or the text's own.

    """
    spec = run.inference.spec(model_name, CLASSIFIERS)
    check_length(spec, text=body.text, text_pair=body.text_pair)
    pair = body.text_pair
    items: list[TextOrPair] = [body.text if pair is None else (body.text, pair)]
    plan = plan_of("text_pair", has_pairs=pair is not None)
    inference = await run.each(
        CLASSIFIERS, items, model_name=model_name, plan=plan, columns=columns_of
    )
    (result,) = inference.rows
    if isinstance(result, ServiceError):
        raise result
    return PredictResponse(
        text=body.text,
        text_pair=body.text_pair,
        label=result.label,
        score=result.score,
        model=inference.model,
        truncated=inference.is_truncated[0],
        scores=_best(result, body.top_k) if body.top_k else None,
        problem_type=_problem_type(inference),
    )


@router.post(
    "/predict", summary="Classify one text", responses=RESPONSES, response_model_exclude_none=True
)
async def predict(body: PredictRequest, run: RunnerDep) -> PredictResponse:
    """Classify one text with the default model, or with the one that the body names."""
    return await _predict(body, run, model_name=body.model_name)


@router.post(
    "/predict/{model_name}",
    summary="Classify one text with a named model",
    responses=problems(
        *WITH_BODY, *WITH_KEY, *WITH_MODEL, ModelNameConflictError, UnsupportedFieldError
    ),
    response_model_exclude_none=True,
)
async def predict_with(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])],
    body: PredictRequest,
    run: RunnerDep,
) -> PredictResponse:
    """Classify one text with the model that the path names."""
    if body.model_name not in {None, model_name}:
        raise ModelNameConflictError
    return await _predict(body, run, model_name=model_name)


@router.post(
    "/predict-batch",
    summary="Classify many texts",
    responses=RESPONSES,
    response_model_exclude_none=True,
)
async def predict_batch(body: PredictBatchRequest, run: RunnerDep) -> PredictBatchResponse:
    """Classify up to 256 texts; one that can't be done gets its own error and fails no other."""
    items: Sequence[TextOrPair] = body.texts
    if body.text_pairs is not None:
        items = list(zip(body.texts, body.text_pairs, strict=True))
    inference = await run.each(
        CLASSIFIERS,
        items,
        model_name=body.model_name,
        plan=plan_of("text_pairs", has_pairs=body.text_pairs is not None),
        refuse=refuse,
        columns=columns_of,
    )
    each = zip(inference.rows, inference.is_truncated, inference.names(), strict=True)
    return PredictBatchResponse(
        model=inference.model,
        results=[_result(row, name, is_truncated=is_truncated) for row, is_truncated, name in each],
        problem_type=_problem_type(inference),
    )


def _best(result: Classification, count: int) -> list[LabelScore]:
    return [LabelScore(label=label, score=score) for label, score in result.scores[:count]]


def _result(
    row: Classification | ServiceError, name: str | None, *, is_truncated: bool
) -> TextResult | FailedText:
    if isinstance(row, ServiceError):
        return FailedText.of(row)
    return TextResult(label=row.label, score=row.score, truncated=is_truncated, prediction_id=name)
