"""`/classify-image` and `/classify-image-batch`."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from fastapi import APIRouter, Depends

from app.batching.base import Scheduler
from app.core.callers import Scope
from app.engines.base import FloatArray, is_regression
from app.engines.images.engine import ImageEngine
from app.errors import ImageTooLargeError, ImageUnreadableError, ServiceError
from app.http.guard import Guard
from app.http.images import FORM_ERRORS, ImagesRoute, form_of, items_of
from app.http.large_answers import LargeAnswer, fields_of, large_answer, list_of
from app.http.problems import WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.models.registry import TaskKey
from app.models.schemas import (
    MAX_NAME_CHARS,
    REGRESSION,
    FailedText,
    LabelScore,
    ProblemType,
)
from app.services.inference import Inference, Plan
from app.tasks.image_classification.schemas import (
    ClassifyImageRequest,
    ClassifyImageResponse,
    ClassifyImagesRequest,
    ClassifyImagesResponse,
)
from app.tasks.image_classification.task import MANY, ONE, TASK

CLASSIFIERS = TaskKey[Scheduler[ImageEngine]](TASK.kind)
RESPONSES = problems(*FORM_ERRORS, ImageUnreadableError, ImageTooLargeError, *WITH_KEY, *WITH_MODEL)
OTHERS: dict[str, Any] = {
    "model_name": {"type": "string", "maxLength": MAX_NAME_CHARS},
    "top_k": {"type": "integer", "minimum": 1, "maximum": 1_000},
}
router = APIRouter(
    tags=["images"], route_class=ImagesRoute, dependencies=[Depends(Guard(Scope.PREDICT))]
)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Labels of one image with their scores, the best first."""

    scores: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, row: FloatArray, labels: Sequence[str]) -> "Ranked":
        """Return the labels of a row, (labels,) float32."""
        pairs = zip(labels, row.tolist(), strict=True)
        return cls(tuple(sorted(pairs, key=itemgetter(1), reverse=True)))

    def best(self, count: int | None) -> list[LabelScore] | None:
        """Return so many of the best; None where no number is asked for."""
        if count is None:
            return None
        return [LabelScore(label=label, score=score) for label, score in self.scores[:count]]


def plan_of(engine: ImageEngine) -> Plan:
    """Return what makes labels of an engine's rows."""
    return Plan(shape=lambda row: Ranked.of(row, engine.head.labels))


def _columns(ranked: Ranked) -> dict[str, Any]:
    label, score = ranked.scores[0]
    return {"label": label, "score": score}


def _problem_type(inference: Inference[ImageEngine]) -> ProblemType:
    return REGRESSION if is_regression(inference.engine) else None


async def _classify(
    run: TaskRunner, images: Sequence[bytes | str], model_name: str | None
) -> Inference[ImageEngine]:
    """Classify images; raises as `TaskRunner.each`."""
    items = items_of(images)
    return await run.each(CLASSIFIERS, items, model_name=model_name, plan=plan_of, columns=_columns)


@router.post(
    ONE,
    summary="Classify one image",
    responses=RESPONSES,
    response_model_exclude_none=True,
    openapi_extra=form_of("image", **OTHERS),
)
async def classify_image(body: ClassifyImageRequest, run: RunnerDep) -> ClassifyImageResponse:
    """Classify one image with the default model, or with the one that the body names."""
    inference = await _classify(run, [body.image], body.model_name)
    (ranked,) = inference.rows
    if isinstance(ranked, ServiceError):
        raise ranked
    return ClassifyImageResponse(
        **_columns(ranked),
        model=inference.model,
        scores=ranked.best(body.top_k),
        problem_type=_problem_type(inference),
    )


@router.post(
    MANY,
    summary="Classify many images",
    responses=RESPONSES,
    response_model=ClassifyImagesResponse,
    openapi_extra=form_of("images", may_be_empty=True, **OTHERS),
)
async def classify_images(body: ClassifyImagesRequest, run: RunnerDep) -> LargeAnswer:
    """Classify up to 32 images; one that can't be done gets its own error and fails no other."""
    inference = await _classify(run, body.images, body.model_name)
    kind = _problem_type(inference)
    fields = (
        {"model": inference.model, "problem_type": kind} if kind else {"model": inference.model}
    )
    rows, count = inference.rows, body.top_k or 0
    return await large_answer(
        lambda: fields_of(fields | {"results": list_of(_result(row, body.top_k) for row in rows)}),
        values=len(rows) * (1 + min(count, len(inference.engine.head.labels))),
    )


def _result(row: Ranked | ServiceError, top_k: int | None) -> dict[str, Any]:
    """Return an `ImageResult`, or the error in its place."""
    if isinstance(row, ServiceError):
        return FailedText.of(row).model_dump()
    if top_k is None:
        return _columns(row)
    scores = [{"label": label, "score": score} for label, score in row.scores[:top_k]]
    return {**_columns(row), "scores": scores}
