"""Token classification in Hugging Face's dialect."""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

from fastapi import Response
from pydantic import Field

from app.core.callers import Scope
from app.errors import UnsupportedFieldError
from app.http.hub import HubCall, HubRequest, HubTask, Texts, all_rows, texts_in
from app.http.large_answers import joined, large_answer, list_of
from app.http.task_runner import TaskRunner
from app.models.schemas import Request
from app.services.entities import OUTSIDE, TOKEN_CLASSIFIERS, Aggregation, Spans
from app.services.lengths import refuse
from app.tasks.token_classification.routes import AT_ONCE, columns_of, plan_of
from app.tasks.token_classification.schemas import AggregationName

MAX_LABELS = 1_000


class TokenParameters(Request):
    """How tokens become entities."""

    aggregation_strategy: AggregationName = "simple"
    ignore_labels: Annotated[list[str], Field(max_length=MAX_LABELS)] | None = None
    stride: Annotated[int | None, Field(description="Ignored: windows overlap as they are.")] = None


class TokenInputs(HubRequest):
    """A text, or several, in which entities are found."""

    inputs: str | Texts
    parameters: TokenParameters | None = None


async def _answer(body: TokenInputs, run: TaskRunner, model_name: str | None) -> Response:
    """Answer a list of entities, or of several texts a list of them."""
    parameters = body.parameters or TokenParameters()
    ignored = [OUTSIDE] if parameters.ignore_labels is None else parameters.ignore_labels
    if OUTSIDE not in ignored:
        raise UnsupportedFieldError("ignore_labels", detail="Tokens of no entity are left out.")
    aggregation = Aggregation(parameters.aggregation_strategy)
    texts = texts_in(body.inputs)
    inference = await run.each(
        TOKEN_CLASSIFIERS,
        texts,
        model_name=model_name,
        plan=partial(plan_of, aggregation=aggregation),
        refuse=refuse,
        columns=columns_of,
    )
    rows: list[Spans] = all_rows(inference, body)
    name = "entity" if aggregation is Aggregation.NONE else "entity_group"

    def entities(text: str, spans: Spans) -> Iterator[bytes]:
        found = (
            {
                name: span.label,
                "score": span.score,
                "word": text[span.start : span.end],
                "start": span.start,
                "end": span.end,
            }
            for span in spans
            if span.label not in ignored
        )
        return list_of(found, at_once=AT_ONCE)

    pairs: list[tuple[Any, Any]] = list(zip(texts, rows, strict=True))
    values = sum(map(len, rows))
    if isinstance(body.inputs, str):
        return await large_answer(lambda: entities(*pairs[0]), values=values)
    return await large_answer(lambda: joined(entities(*pair) for pair in pairs), values=values)


HUB = HubTask(
    inputs=HubCall(body=TokenInputs, scope=Scope.PREDICT, answer=_answer),
    marks=frozenset({"aggregation_strategy", "ignore_labels", "stride"}),
)
