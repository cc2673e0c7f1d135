"""The wire contract of feedback on predictions."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from app.features.prediction_log.bounds import MAX_LABEL_CHARS, NO_NUL
from app.models.schemas import Request, Response, example

MAX_COMMENT_CHARS = 2_000
SAID = ("label", "correct", "score", "comment")
Score = Annotated[
    float, Field(ge=0, le=1, allow_inf_nan=False, description="How good the answer was, 0 to 1.")
]


class FeedbackRequest(Request):
    """What a caller says of a prediction, with at least one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=example({"label": "NEGATIVE", "comment": "It was meant as irony."})
        | {"minProperties": 1}
    )

    label: Annotated[str, Field(max_length=MAX_LABEL_CHARS, pattern=NO_NUL)] | None = Field(
        None, description="The right label."
    )
    correct: bool | None = Field(
        None,
        description="Whether the prediction was right; without it a `label` says so, where the"
        " prediction has one.",
    )
    score: Score | None = None
    comment: Annotated[str, Field(max_length=MAX_COMMENT_CHARS, pattern=NO_NUL)] | None = None

    @model_validator(mode="after")
    def says_something(self) -> Self:
        """Refuse feedback without any field."""
        if all(getattr(self, name) is None for name in SAID):
            raise ValueError(f"give at least one of {', '.join(SAID)}")
        return self


class GivenFeedback(Response):
    """What was said of a prediction, last."""

    given_at: datetime
    label: str | None
    correct: bool | None
    score: float | None
    comment: str | None


class FeedbackAnswer(GivenFeedback):
    """The feedback as it is stored now."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "prediction_id": "019e0f2d-1a2b-707b-800f-ffffffffffff",
                "given_at": "2026-11-22T12:03:00.123456Z",
                "label": "NEGATIVE",
                "correct": False,
                "score": None,
                "comment": "It was meant as irony.",
            }
        )
    )

    prediction_id: str


class VersionSummary(Response):
    """What was said of one version of a model."""

    model: str
    version: str | None
    count: Annotated[int, Field(description="Predictions with feedback.")]
    judged: Annotated[int, Field(description="Of them, those said to be correct or wrong.")]
    correct: Annotated[int, Field(description="Of the judged, the correct ones.")]
    accuracy: Annotated[
        float | None, Field(description="The correct ones' share of the judged; null without any.")
    ]
    score: Annotated[float | None, Field(description="The mean of the scores that were given.")]


class FeedbackSummary(Response):
    """What was said, by model and version."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "versions": [
                    {
                        "model": "sentiment",
                        "version": "3f1c2a9b",
                        "count": 40,
                        "judged": 32,
                        "correct": 28,
                        "accuracy": 0.875,
                        "score": None,
                    }
                ]
            }
        )
    )

    versions: list[VersionSummary]


FIELDS_OF_SUMMARY = tuple(VersionSummary.model_fields)
