"""Decides with a plain classifier: the options are its labels."""

from collections.abc import Sequence

from app.batching.base import Scheduler
from app.engines.base import Classifier, FloatArray, Task, is_regression, needs_pairs
from app.errors import ServiceError, UnsupportedFieldError
from app.features.decisions.questions import Decided, DecisionUsage, Kind, Question, Verdict
from app.http.task_runner import TaskRunner
from app.models.registry import TaskKey
from app.services.inference import Inference, Plan
from app.services.lengths import check_length

CLASSIFIERS = TaskKey[Scheduler[Classifier]](Task.CLASSIFICATION)


async def decide(
    run: TaskRunner, state: str, questions: Sequence[Question], *, model_name: str, field: str
) -> Decided:
    """Classify the state once, and read the answer to each question from its labels.

    Args:
        run: of the request.
        state: the text that the questions are about.
        questions: whose options are labels of the model.
        model_name: of a classifier.
        field: where the body has the state.

    Raises:
        InvalidRequestError: an option is no label, or the state is longer than its model takes.
        UnsupportedFieldError: the model's scores aren't probabilities, or it takes pairs alone.
        ServiceError: as `TaskRunner.together`, or the text's own.

    """
    check_length(run.inference.spec(model_name, CLASSIFIERS), **{field: state})

    def plan(engine: Classifier) -> Plan:
        if is_regression(engine) or needs_pairs(engine):
            raise UnsupportedFieldError("model", detail="This model has no labels of single texts.")
        for question in questions:
            _places(question, engine.labels)
        return Plan()

    def answer(inference: Inference[Classifier]) -> Decided:
        (row,) = inference.rows
        if isinstance(row, ServiceError):
            raise row
        labels = inference.engine.labels
        return Decided(
            model=inference.model,
            verdicts=tuple(_verdict(question, labels, row) for question in questions),
            usage=DecisionUsage(input_tokens=inference.tokens),
        )

    return await run.together(
        CLASSIFIERS, [state], model_name=model_name, answer=answer, plan=plan, logged=state
    )


def _verdict(question: Question, labels: Sequence[str], scores: FloatArray) -> Verdict:
    """Return how likely the options are by the scores of all labels, (labels,) float32."""
    found = [float(scores[place]) for place in _places(question, labels)]
    if question.kind is Kind.PREDICATE:
        (likely,) = found
        return Verdict.of((likely, 1 - likely))
    return Verdict.of(found)


def _places(question: Question, labels: Sequence[str]) -> list[int]:
    """Return the numbers of the labels that a question names; capitals don't matter.

    Raises:
        InvalidRequestError: one is no label.

    """
    known = {label.casefold(): number for number, label in enumerate(labels)}
    if question.kind is Kind.PREDICATE:
        # A classifier reads no instructions: they, or the name, are the label that is asked for.
        named = (question.instructions, question.name or "")
        place = next((known[n.casefold()] for n in named if n.casefold() in known), None)
        wanted = [place]
    else:
        wanted = [known.get(option.text.casefold()) for option in question.options]
    places = [place for place in wanted if place is not None]
    if len(places) < len(wanted) or len(set(places)) < len(places):
        raise question.fault(f"this model is a classifier; its labels are {', '.join(labels)}")
    return places
