"""Classification in the Open Inference Protocol."""

from collections.abc import Sequence

import numpy as np

from app.core.callers import Scope
from app.engines.base import Classifier
from app.http.task_runner import TaskRunner
from app.http.tensors import NumberTensor, Tensors, TensorTask, Texts
from app.models.schemas import MAX_BATCH_TEXTS
from app.services.lengths import refuse
from app.services.places import place_in, whole
from app.tasks.classification.labels import CLASSIFIERS, Classification
from app.tasks.classification.routes import columns_of, plan_of

TEXT, SCORES, LABEL = "text", "scores", "label"


def _numbers(engine: Classifier) -> Sequence[NumberTensor]:
    return (NumberTensor(name=SCORES, width=len(engine.labels)),)


async def _answer(texts: Texts, run: TaskRunner, model_name: str) -> Tensors:
    """Answer the scores of all labels in the model's order, and the best label."""
    inference = await run.each(
        CLASSIFIERS,
        texts[TEXT],
        model_name=model_name,
        plan=plan_of(TEXT, has_pairs=False),
        refuse=refuse,
        columns=columns_of,
    )
    rows: list[Classification] = whole(inference.rows, place_in(TEXT))
    by_label = [dict(row.scores) for row in rows]
    scores = [[of[label] for label in inference.engine.labels] for of in by_label]
    return {SCORES: np.array(scores, dtype=np.float32), LABEL: [row.label for row in rows]}


TENSORS = TensorTask(
    inputs=(TEXT,),
    scope=Scope.PREDICT,
    max_texts=MAX_BATCH_TEXTS,
    numbers=_numbers,
    answer=_answer,
    texts=(LABEL,),
)
