"""What a task answers in Hugging Face's dialects: `{"inputs": …, "parameters"?}`, and TEI's.

A task says which bodies it takes and what it answers; the feature `huggingface` has the routes.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from pydantic_core import to_json

from app.core.callers import Scope
from app.errors import ServiceError
from app.http.cuts import Cuts
from app.http.large_answers import LargeAnswer
from app.http.task_runner import TaskRunner
from app.models.schemas import MAX_BATCH_TEXTS, Request
from app.services.inference import Inference
from app.services.places import place_in, whole

B = TypeVar("B", bound=BaseModel)
Texts = Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH_TEXTS)]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCall(Generic[B]):
    """A body that a task takes, and how it is answered.

    Args:
        body: its schema.
        scope: what a key must have.
        answer: runs it on the model of that name, or on the task's default one.

    """

    body: type[B]
    scope: Scope
    answer: Callable[[B, TaskRunner, str | None], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class HubTask:
    """What a task answers in these dialects.

    Args:
        inputs: at `/hf/{model_name}`, and at `/` where the body is for this task; None: nothing.
        marks: names of fields, also within `inputs` and `parameters`, that only its bodies have.
        takes_plain: a body without any mark may be for it.
        tei: by the last part of the path, such as `embed` of `/tei/embed`.
        routers: of further routes under `/hf`.

    """

    inputs: HubCall[Any] | None = None
    marks: frozenset[str] = frozenset()
    takes_plain: bool = False
    tei: Mapping[str, HubCall[Any]] = field(default_factory=dict)
    routers: Sequence[APIRouter] = ()


class HubRequest(Request, Cuts):
    """What the bodies share."""

    options: Annotated[dict[str, Any] | None, Field(description="Ignored: of HF's servers.")] = None


def hub_answer(value: Any) -> Response:  # noqa: ANN401  # JSON
    """Return a small answer."""
    return LargeAnswer(to_json(value))


def texts_in(inputs: str | list[str]) -> list[str]:
    """Return the texts of `inputs`."""
    return [inputs] if isinstance(inputs, str) else inputs


def all_rows(inference: Inference[Any], body: HubRequest) -> list[Any]:
    """Return all rows, or raise the first error: these dialects know none of single texts.

    Raises:
        ServiceError: as `whole`, or as `Cuts.check`.

    """
    rows = whole(inference.rows, place_in("inputs"))
    body.check([index for index, is_cut in enumerate(inference.is_truncated) if is_cut])
    return rows


def first_error(errors: Sequence[ServiceError | None]) -> None:
    """Raise the first error of texts that are refused before they run, if there is one.

    Raises:
        ServiceError: that.

    """
    for error in errors:
        if error is not None:
            raise error
