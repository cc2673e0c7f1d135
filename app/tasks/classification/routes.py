"""`/predict`, `/predict/{model_name}` and `/predict-batch`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from app.core.callers import Scope
from app.engines.base import Task
from app.errors import InvalidRequestError, ModelNameConflictError, ServiceError
from app.http.answer_log import AnswerLog, AnswerLogDep
from app.http.deps import DeadlineDep, RegistryDep, RuntimeDep
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.models.schemas import (
    MAX_NAME_CHARS,
    REGRESSION,
    FailedText,
    LabelScore,
    PredictBatchRequest,
    PredictBatchResponse,
    PredictRequest,
    PredictResponse,
    TextError,
    TextResult,
)
from app.services.inference import InferenceService, Prediction
from app.services.prediction_log import PredictionLogEntry

router = APIRouter(
    tags=["predict"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.PREDICT))]
)
TOO_LONG = "string_too_long"  # as Pydantic calls it
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL)


async def get_inference(registry: RegistryDep, runtime: RuntimeDep) -> InferenceService:
    """Return the classification service over the registry in force."""
    return InferenceService(registry, runtime.rows, log_inputs=runtime.policy.log_inputs)


InferenceDep = Annotated[InferenceService, Depends(get_inference)]


def _answer(asked: PredictRequest, made: Prediction) -> PredictResponse:
    best = [LabelScore(label=label, score=score) for label, score in made.scores[: asked.top_k]]
    return PredictResponse(
        text=asked.text,
        label=made.label,
        score=made.score,
        model=made.model,
        truncated=made.is_truncated,
        scores=best if asked.top_k else None,
        problem_type=REGRESSION if made.is_regression else None,
    )


@router.post(
    "/predict", summary="Classify one text", responses=RESPONSES, response_model_exclude_none=True
)
async def predict(
    asked: PredictRequest, inference: InferenceDep, deadline: DeadlineDep, log: AnswerLogDep
) -> PredictResponse:
    """Classify one text with the default model, or with the one that the body names."""
    _check_length(asked.text, inference.max_chars(asked.model_name))
    with log.failures(Task.CLASSIFICATION, asked.text, model=asked.model_name):
        made = await inference.predict(asked.text, model_name=asked.model_name, deadline=deadline)
    log.keep(_entry(log, made, asked.text, model=made.model, version=made.version))
    return _answer(asked, made)


@router.post(
    "/predict/{model_name}",
    summary="Classify one text with a named model",
    responses=problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, ModelNameConflictError),
    response_model_exclude_none=True,
)
async def predict_with(
    model_name: Annotated[str, Path(max_length=MAX_NAME_CHARS, examples=["sentiment"])],
    asked: PredictRequest,
    inference: InferenceDep,
    deadline: DeadlineDep,
    log: AnswerLogDep,
) -> PredictResponse:
    """Classify one text with the model that the path names."""
    if asked.model_name not in {None, model_name}:
        raise ModelNameConflictError
    _check_length(asked.text, inference.max_chars(model_name))
    with log.failures(Task.CLASSIFICATION, asked.text, model=model_name):
        made = await inference.predict(asked.text, model_name=model_name, deadline=deadline)
    log.keep(_entry(log, made, asked.text, model=made.model, version=made.version))
    return _answer(asked, made)


@router.post(
    "/predict-batch",
    summary="Classify many texts",
    responses=RESPONSES,
    response_model_exclude_none=True,
)
async def predict_batch(
    asked: PredictBatchRequest, inference: InferenceDep, deadline: DeadlineDep, log: AnswerLogDep
) -> PredictBatchResponse:
    """Classify up to 256 texts; one that can't be done gets its own error and fails no other."""
    with log.failures(Task.CLASSIFICATION, *asked.texts, model=asked.model_name):
        made = await inference.predict_batch(
            asked.texts, model_name=asked.model_name, deadline=deadline
        )
    log.keep(
        *(
            _entry(log, result, text, model=made.model, version=made.version)
            for result, text in zip(made.results, asked.texts, strict=True)
        )
    )
    return PredictBatchResponse(
        model=made.model,
        results=[_result(r) for r in made.results],
        problem_type=REGRESSION if made.is_regression else None,
    )


def _check_length(text: str, max_chars: int | None) -> None:
    """Refuse a text over its model's bound, in the words of the other bounds of a body.

    Raises:
        InvalidRequestError: it is too long.

    """
    if max_chars is not None and len(text) > max_chars:
        said = f"String should have at most {max_chars} characters"
        raise InvalidRequestError([{"loc": ["body", "text"], "msg": said, "type": TOO_LONG}])


def _entry(
    log: AnswerLog, made: Prediction | ServiceError, text: str, *, model: str, version: str
) -> PredictionLogEntry:
    """Return the log's entry of one text: its label, or its error."""
    if isinstance(made, ServiceError):
        return log.failure(made, Task.CLASSIFICATION, text, model=model, version=version)
    return log.entry(
        Task.CLASSIFICATION, text, model=model, version=version, label=made.label, score=made.score
    )


def _result(made: Prediction | ServiceError) -> TextResult | FailedText:
    if isinstance(made, ServiceError):
        return FailedText(error=TextError(code=made.code, detail=made.detail))
    return TextResult(label=made.label, score=made.score, truncated=made.is_truncated)
