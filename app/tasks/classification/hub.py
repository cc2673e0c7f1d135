"""Classification in Hugging Face's dialect, and TEI's `/predict`."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Self, cast

from fastapi import Response
from pydantic import Field, model_validator

from app.core.callers import Scope
from app.engines.base import Classifier, TextOrPair
from app.errors import UnsupportedFieldError
from app.http.hub import HubCall, HubRequest, HubTask, Texts, all_rows, hub_answer, texts_in
from app.http.openai_schemas import Only
from app.http.task_runner import TaskRunner
from app.models.schemas import MAX_BATCH_TEXTS, Request, TopK
from app.services.inference import Plan
from app.services.lengths import refuse
from app.tasks.classification.labels import CLASSIFIERS, Classification
from app.tasks.classification.routes import columns_of, plan_of

Some = Annotated[list[str], Field(min_length=1, max_length=2)]  # a text, or a pair
Batch = Annotated[list[Some], Field(min_length=1, max_length=MAX_BATCH_TEXTS)]


class ClassifyParameters(Request):
    """How texts are classified."""

    top_k: TopK | None = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class ClassifyInputs(HubRequest):
    """A text, or several."""

    inputs: str | Texts
    parameters: ClassifyParameters | None = None


class TeiPredict(HubRequest):
    """A text, a list of two that are a pair, or several of either in lists of their own."""

    inputs: str | Some | Batch
    raw_scores: Annotated[Any, Only(None, False)] = None  # noqa: FBT003  # a value

    @model_validator(mode="after")
    def is_of_one_kind(self) -> Self:
        """Refuse pairs together with single texts."""
        if self.is_batch and len({len(one) for one in self.inputs}) > 1:
            raise ValueError("either single texts or pairs")
        return self

    @property
    def is_batch(self) -> bool:
        """Whether there are several."""
        return isinstance(self.inputs, list) and isinstance(self.inputs[0], list)

    def items(self) -> list[TextOrPair]:
        """Return the texts or pairs."""
        if isinstance(self.inputs, str):
            return [self.inputs]
        lists = cast("Batch", self.inputs if self.is_batch else [self.inputs])
        return [(one[0], one[1]) if len(one) > 1 else one[0] for one in lists]


def _plan(function: str | None, *, has_pairs: bool) -> Callable[[Classifier], Plan]:
    """Return what plans the items, and refuses another function than the model's own."""
    plan_items = plan_of("inputs", has_pairs=has_pairs)

    def plan(engine: Classifier) -> Plan:
        own = getattr(engine, "activation", None)
        if function is not None and own is not None and str(own) != function:
            raise UnsupportedFieldError(
                "function_to_apply", detail=f"This model's scores are made by {own}."
            )
        return plan_items(engine)

    return plan


async def _classify(
    run: TaskRunner,
    items: Sequence[TextOrPair],
    body: HubRequest,
    *,
    model_name: str | None,
    function: str | None = None,
) -> list[Classification]:
    inference = await run.each(
        CLASSIFIERS,
        items,
        model_name=model_name,
        plan=_plan(function, has_pairs=not isinstance(items[0], str)),
        refuse=refuse,
        columns=columns_of,
    )
    return all_rows(inference, body)


def _scores(row: Classification, top_k: int | None = None) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in row.scores[:top_k]]


async def _answer(body: ClassifyInputs, run: TaskRunner, model_name: str | None) -> Response:
    """Answer a list of labels for each text, for a single one too, as clients expect it."""
    parameters = body.parameters or ClassifyParameters()
    rows = await _classify(
        run,
        texts_in(body.inputs),
        body,
        model_name=model_name,
        function=parameters.function_to_apply,
    )
    return hub_answer([_scores(row, parameters.top_k) for row in rows])


async def _predict(body: TeiPredict, run: TaskRunner, model_name: str | None) -> Response:
    """Answer a list of labels, or of several texts a list of them."""
    rows = await _classify(run, body.items(), body, model_name=model_name)
    answers = [_scores(row) for row in rows]
    return hub_answer(answers if body.is_batch else answers[0])


HUB = HubTask(
    inputs=HubCall(body=ClassifyInputs, scope=Scope.PREDICT, answer=_answer),
    marks=frozenset({"function_to_apply", "top_k"}),
    takes_plain=True,
    tei={"predict": HubCall(body=TeiPredict, scope=Scope.PREDICT, answer=_predict)},
)
