"""Decides with a zero-shot model: whether a sentence for each option follows from the state."""

from collections.abc import Sequence
from typing import cast

import numpy as np

from app.batching.base import Scheduler
from app.engines.base import FloatArray, PairClassifier, Task
from app.errors import InvalidRequestError, ServiceError
from app.features.decisions.questions import Decided, DecisionUsage, Kind, Option, Question, Verdict
from app.http.task_runner import TaskRunner
from app.models.registry import TaskKey
from app.services.entailment import likelihoods
from app.services.inference import Inference
from app.services.lengths import check_length

NLI_MODELS = TaskKey[Scheduler[PairClassifier]](Task.ZERO_SHOT)
MAX_PAIRS = 2_048  # sentences that a request has the engine run, as for /zero-shot-batch
PLACE = "{}"
TEMPLATE = "This example is {}."  # as transformers' pipeline has it


async def decide(
    run: TaskRunner, state: str, questions: Sequence[Question], *, model_name: str, field: str
) -> Decided:
    """Run the state with the sentences of all questions.

    Args:
        run: of the request.
        state: the text that the questions are about.
        questions: of any kind.
        model_name: of a zero-shot model.
        field: where the body has the state.

    Raises:
        InvalidRequestError: a predicate has no statement, there are more than 2048 sentences, or
            the state is longer than its model takes.
        ServiceError: as `TaskRunner.together`, or a pair's own.

    """
    check_length(run.inference.spec(model_name, NLI_MODELS), **{field: state})
    sentences = [_sentences(question) for question in questions]
    pairs = [(state, sentence) for group in sentences for sentence in group]
    if len(pairs) > MAX_PAIRS:
        message = f"all options together may be {MAX_PAIRS} at most for this model"
        many = {"loc": ["body", "questions"], "msg": message, "type": "too_long"}
        raise InvalidRequestError([many])

    def answer(inference: Inference[PairClassifier]) -> Decided:
        entailment = inference.engine.entailment
        assert entailment is not None  # noqa: S101  # engines of this task have one
        error = next((row for row in inference.rows if isinstance(row, ServiceError)), None)
        if error is not None:
            raise error
        rows = iter(cast("list[FloatArray]", inference.rows))
        logits = [np.stack([next(rows) for _ in group]) for group in sentences]
        return Decided(
            model=inference.model,
            verdicts=tuple(_verdict(of_one, entailment) for of_one in logits),
            usage=DecisionUsage(input_tokens=inference.tokens),
        )

    return await run.together(
        NLI_MODELS,
        pairs,
        model_name=model_name,
        answer=answer,
        charged_tokens=len(pairs),
        logged=state,
    )


def _verdict(logits: FloatArray, entailment: int) -> Verdict:
    """Return how likely the options are: against each other, and the best one on its own."""
    alone = likelihoods(logits, entailment, is_multi_label=True).tolist()
    if len(alone) == 1:
        return Verdict.of((alone[0], 1 - alone[0]))
    together = likelihoods(logits, entailment, is_multi_label=False).tolist()
    return Verdict.of(together, confidence=alone[together.index(max(together))])


def _sentences(question: Question) -> list[str]:
    """Return what may follow from the state: a statement, or a sentence for each option."""
    if question.kind is Kind.PREDICATE:
        statement = question.instructions or question.name
        if not statement:
            raise question.fault("a predicate is a statement", field="instructions")
        return [statement]
    template = question.instructions if question.instructions.count(PLACE) == 1 else TEMPLATE
    return [_sentence(option, template) for option in question.options]


def _sentence(option: Option, template: str) -> str:
    return option.description or template.replace(PLACE, option.text)
