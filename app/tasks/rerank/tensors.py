"""Ranking in the Open Inference Protocol: a number for each text."""

from collections.abc import Sequence

import numpy as np

from app.core.callers import Scope
from app.engines.base import Classifier
from app.http.task_runner import TaskRunner
from app.http.tensors import NumberTensor, Tensors, TensorTask, Texts, wrong_tensor
from app.tasks.rerank.routes import rank_texts
from app.tasks.rerank.schemas import MAX_DOCUMENTS

QUERY, TEXT, SCORE = "query", "text", "score"
ONE_QUERY = "One query, which isn't empty"


def _numbers(_engine: Classifier) -> Sequence[NumberTensor]:
    return (NumberTensor(name=SCORE),)


async def _answer(texts: Texts, run: TaskRunner, model_name: str) -> Tensors:
    """Answer how well each text answers the query, in the texts' order."""
    if len(texts[QUERY]) != 1 or not texts[QUERY][0]:
        raise wrong_tensor(QUERY, ONE_QUERY)
    ranking = await rank_texts(run, texts[QUERY][0], texts[TEXT], model_name=model_name, field=TEXT)
    scores = [score for _, score in sorted(ranking.best)]
    return {SCORE: np.array(scores, dtype=np.float32)}


TENSORS = TensorTask(
    inputs=(QUERY, TEXT),
    scope=Scope.PREDICT,
    max_texts=MAX_DOCUMENTS,
    numbers=_numbers,
    answer=_answer,
)
