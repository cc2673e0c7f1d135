"""Zero-shot classification in Hugging Face's dialect."""

from typing import Self

from fastapi import Response
from pydantic import model_validator

from app.core.callers import Scope
from app.errors import ServiceError
from app.http.hub import (
    HubCall,
    HubRequest,
    HubTask,
    Texts,
    first_error,
    hub_answer,
    texts_in,
)
from app.http.task_runner import TaskRunner
from app.models.schemas import Request
from app.services.lengths import refuse
from app.tasks.zero_shot.routes import NLI_MODELS, classify_texts
from app.tasks.zero_shot.schemas import (
    DEFAULT_TEMPLATE,
    MAX_PAIRS,
    Labels,
    Template,
    ZeroShotFields,
)


class ZeroShotParameters(Request):
    """What texts are classified by."""

    candidate_labels: Labels
    multi_label: bool | None = None
    hypothesis_template: Template | None = None

    def fields(self) -> ZeroShotFields:
        """Return the same as the own routes have it."""
        return ZeroShotFields(
            labels=self.candidate_labels,
            multi_label=bool(self.multi_label),
            hypothesis_template=self.hypothesis_template or DEFAULT_TEMPLATE,
        )


class ZeroShotInputs(HubRequest):
    """A text, or several, and the labels to choose from."""

    inputs: str | Texts
    parameters: ZeroShotParameters

    @model_validator(mode="after")
    def is_bounded(self) -> Self:
        """Refuse more work than one request may be."""
        if len(texts_in(self.inputs)) * len(self.parameters.candidate_labels) > MAX_PAIRS:
            raise ValueError(f"texts times labels may be {MAX_PAIRS} at most")
        return self


async def _answer(body: ZeroShotInputs, run: TaskRunner, model_name: str | None) -> Response:
    """Answer the labels with their scores, the best first, or of several texts a list of them."""
    texts = texts_in(body.inputs)
    if spec := run.inference.spec(model_name, NLI_MODELS):
        first_error([refuse(spec, text) for text in texts])
    fields = body.parameters.fields()
    _, results = await classify_texts(run, texts, fields, model_name=model_name)
    answers = []
    for index, result in enumerate(results):
        if isinstance(result, ServiceError):
            raise result
        body.check([index] if result.is_truncated else [])
        answers.append([{"label": label, "score": score} for label, score in result.scores])
    return hub_answer(answers[0] if isinstance(body.inputs, str) else answers)


HUB = HubTask(
    inputs=HubCall(body=ZeroShotInputs, scope=Scope.PREDICT, answer=_answer),
    marks=frozenset({"candidate_labels", "hypothesis_template", "multi_label"}),
)
