"""`/zero-shot` and `/zero-shot-batch`."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from fastapi import APIRouter, Depends

from app.batching.base import Scheduler
from app.core.callers import Scope
from app.engines.base import FloatArray, PairClassifier
from app.errors import ServiceError, TextTooLongError
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.large_answers import LargeAnswer, fields_of, large_answer, list_of
from app.http.problems import WITH_BODY, WITH_KEY, WITH_MODEL, problems
from app.http.task_runner import RunnerDep, TaskRunner
from app.models.registry import TaskKey
from app.models.schemas import FailedText
from app.services.entailment import likelihoods
from app.services.inference import Inference
from app.services.lengths import check_length, refuse
from app.tasks.zero_shot.likelihood import Labelled, labelled
from app.tasks.zero_shot.schemas import (
    ZeroShotBatchRequest,
    ZeroShotBatchResponse,
    ZeroShotFields,
    ZeroShotRequest,
    ZeroShotResponse,
)
from app.tasks.zero_shot.task import TASK

NLI_MODELS = TaskKey[Scheduler[PairClassifier]](TASK.kind)
router = APIRouter(
    tags=["zero-shot"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.PREDICT))]
)
RESPONSES = problems(*WITH_BODY, *WITH_KEY, *WITH_MODEL, TextTooLongError)
Results = list[Labelled | ServiceError]


async def classify_texts(
    run: TaskRunner, texts: Sequence[str], fields: ZeroShotFields, *, model_name: str | None
) -> tuple[str, Results]:
    """Return the model's name, and the labels of each text, or the error in their place.

    A text with a label costs a token of the quota: that is what the engine runs.
    """
    hypotheses = fields.hypotheses()
    pairs = [(text, hypothesis) for text in texts for hypothesis in hypotheses]
    return await run.together(
        NLI_MODELS,
        pairs,
        model_name=model_name,
        answer=answer_of(fields),
        charged_tokens=len(pairs),
        logged="\n".join(texts),
        columns=_columns,
    )


def answer_of(
    fields: ZeroShotFields,
) -> Callable[[Inference[PairClassifier]], tuple[str, Results]]:
    """Return what makes the labels of each text from the rows of its pairs."""
    count = len(fields.labels)

    def answer(inference: Inference[PairClassifier]) -> tuple[str, Results]:
        entailment = inference.engine.entailment
        assert entailment is not None  # noqa: S101  # engines of this task have one
        results: Results = []
        for start in range(0, len(inference.rows), count):
            rows = inference.rows[start : start + count]
            error = next((row for row in rows if isinstance(row, ServiceError)), None)
            if error is not None:
                results.append(error)
                continue
            logits: FloatArray = np.stack(cast("list[FloatArray]", rows))
            scores = likelihoods(logits, entailment, is_multi_label=fields.multi_label)
            is_cut = any(inference.is_truncated[start : start + count])
            results.append(labelled(fields.labels, scores, is_truncated=is_cut))
        return inference.model, results

    return answer


def _columns(answer: tuple[str, Results]) -> dict[str, Any]:
    """Return what the log's entry says: of several texts nothing."""
    _, results = answer
    if len(results) != 1 or isinstance(results[0], ServiceError):
        return {}
    return {"label": results[0].label, "score": results[0].score}


@router.post("/zero-shot", summary="Classify a text by labels of your own", responses=RESPONSES)
async def zero_shot(body: ZeroShotRequest, run: RunnerDep) -> ZeroShotResponse:
    """Classify one text; a longer one than the model's window is cut, a label never is."""
    check_length(run.inference.spec(body.model_name, NLI_MODELS), text=body.text)
    model, (result,) = await classify_texts(run, [body.text], body, model_name=body.model_name)
    if isinstance(result, ServiceError):
        raise result
    return ZeroShotResponse.model_validate({**_fields(result), "model": model})


@router.post(
    "/zero-shot-batch",
    summary="Classify many texts by labels of your own",
    responses=RESPONSES,
    response_model=ZeroShotBatchResponse,
)
async def zero_shot_batch(body: ZeroShotBatchRequest, run: RunnerDep) -> LargeAnswer:
    """Classify up to 256 texts; one that can't be done gets its own error and fails no other."""
    spec = run.inference.spec(body.model_name, NLI_MODELS)
    refused = [refuse(spec, text) if spec else None for text in body.texts]
    texts = [text for text, error in zip(body.texts, refused, strict=True) if error is None]
    model, results = await classify_texts(run, texts, body, model_name=body.model_name)
    remaining = iter(results)
    every = [error or next(remaining) for error in refused]
    return await large_answer(
        lambda: fields_of({"model": model, "results": list_of(map(_result, every), at_once=8)}),
        values=2 * len(texts) * len(body.labels),  # a label and a score
    )


def _fields(result: Labelled) -> dict[str, Any]:
    return {
        "label": result.label,
        "score": result.score,
        "scores": [{"label": label, "score": score} for label, score in result.scores],
        "truncated": result.is_truncated,
    }


def _result(result: Labelled | ServiceError) -> dict[str, Any]:
    if isinstance(result, ServiceError):
        return FailedText.of(result).model_dump()
    return _fields(result)
