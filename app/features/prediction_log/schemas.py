"""The wire contract of `/predictions` and `/predictions/export`."""

from typing import Annotated, Any, Literal, get_type_hints

from pydantic import ConfigDict, Field, create_model

from app.features.prediction_log.bounds import (
    MAX_ID_CHARS,
    MAX_LABEL_CHARS,
    MAX_VERSION_CHARS,
    NO_NUL,
)
from app.features.prediction_log.feedback_schemas import GivenFeedback
from app.features.prediction_log.filters import Judgement
from app.features.prediction_log.queries import LogQuery
from app.models.schemas import Response, example
from app.services.prediction_log import PredictionLogEntry

MAX_PAGE_ROWS = 1_000
MAX_CURSOR_CHARS = 64


class PredictionFilters(LogQuery):
    """Which predictions; what isn't given isn't asked for."""

    label: str | None = Field(
        None, max_length=MAX_LABEL_CHARS, pattern=NO_NUL, description="Only with this label."
    )
    request_id: str | None = Field(
        None, max_length=MAX_ID_CHARS, pattern=NO_NUL, description="Only of this request."
    )
    version: str | None = Field(
        None,
        max_length=MAX_VERSION_CHARS,
        pattern=NO_NUL,
        description="Only of this version of a model.",
    )
    status: int | None = Field(
        None, ge=100, le=599, description="Only with this status, such as 200 or 503."
    )
    error: str | None = Field(
        None,
        max_length=MAX_ID_CHARS,
        pattern=NO_NUL,
        description="Only with this error's code, such as `overloaded`.",
    )
    feedback: Judgement | None = Field(
        None,
        description="Only with feedback (`given`), without (`none`), or what it calls `correct` or"
        " `wrong`.",
    )
    shadow: bool = Field(
        False,  # noqa: FBT003  # a field's default
        description="Those that shadows made of copies, instead of those that were answers.",
    )


class PageQuery(PredictionFilters):
    """Which page of which predictions."""

    limit: int = Field(100, ge=1, le=MAX_PAGE_ROWS, description="Predictions in the page.")
    cursor: str | None = Field(
        None,
        max_length=MAX_CURSOR_CHARS,
        pattern=r"^[0-9]+-[0-9]+$",
        description="The `next` of the page before; give the same filters with it.",
    )


class ExportQuery(PredictionFilters):
    """Which predictions, and how they are written."""

    format: Literal["ndjson", "csv"] = Field(
        "ndjson", description="One JSON object a line, or CSV."
    )


_COLUMNS: dict[str, Any] = {
    name: (hint, ...)
    for name, hint in get_type_hints(PredictionLogEntry, include_extras=True).items()
} | {
    "prediction_id": (
        Annotated[str, Field(description="As in the answer's `X-Prediction-ID`.")],
        ...,
    ),
    "feedback": (GivenFeedback | None, ...),
}
LoggedPrediction = create_model(
    "LoggedPrediction", __base__=Response, __doc__="One answer of the service.", **_COLUMNS
)


class PredictionPage(Response):
    """Predictions, newest first."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "predictions": [
                    {
                        "time": "2026-11-22T12:00:00.123456Z",
                        "id": 4503599627370496,
                        "request_id": "0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
                        "key_id": 7,
                        "task": "text-classification",
                        "model": "sentiment",
                        "version": "3f1c2a9b",
                        "status": 200,
                        "error": None,
                        "latency_ms": 7.41,
                        "label": "POSITIVE",
                        "score": 0.9871,
                        "input_hash": "9f86d081884c7d659a2feaa0c55ad015"
                        "a3bf4f1b2b0b822cd15d6c15b0f00a08",
                        "input": None,
                        "prompt_tokens": None,
                        "completion_tokens": None,
                        "ttft_ms": None,
                        "finish_reason": None,
                        "shadow": False,
                        "prediction_id": "019bfa4d-0680-707b-8010-000000000000",
                        "feedback": {
                            "given_at": "2026-11-22T12:03:00.5Z",
                            "label": "NEGATIVE",
                            "correct": False,
                            "score": None,
                            "comment": None,
                        },
                    }
                ],
                "next": "1795348800123456-4503599627370496",
            }
        )
    )

    predictions: list[LoggedPrediction]
    next: str | None = Field(description="The next page's `cursor`; null after the last page.")
