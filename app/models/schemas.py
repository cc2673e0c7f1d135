"""Schemas of every service: the base of all bodies, those of `/predict`, and readiness."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.errors import ServiceError
from app.models.catalog import DEFAULT_MAX_CHARS
from app.models.entries import ModelState

MAX_TEXT_CHARS = DEFAULT_MAX_CHARS  # of a query; a model's `limits.max_chars` may say otherwise
MAX_BATCH_TEXTS = 256
MAX_NAME_CHARS = 64

Score = Annotated[
    float,
    Field(description="A probability; of a regression model the number that it predicts."),
]
REGRESSION: Final = "regression"
ProblemType = Annotated[
    Literal["regression"] | None,
    Field(
        description="Only there for models whose scores are predicted numbers of any size, not"
        " probabilities; `label` is then the output with the largest one."
    ),
]


def example(value: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema entry that shows an example."""
    return {"examples": [value]}


def one_of_two(one: str, other: str) -> dict[str, Any]:
    """Return the JSON schema entries that say that exactly one of two fields is given.

    By `if`, not by `oneOf`: generators of clients take the branches of that for types.
    """
    given = {"not": {"type": "null"}}
    return {
        "if": {"required": [one], "properties": {one: given}},
        "then": {"properties": {other: {"type": "null"}}},
        "else": {"required": [other], "properties": {other: given}},
    }


def whole_number(value: object) -> object:
    """Turn 3.0 into 3, as JSON Schema does; other types stay as they are, and are refused."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


TopK = Annotated[int, Field(ge=1, le=1_000), BeforeValidator(whole_number)]


class Request(BaseModel):
    """What all request bodies share: exact types, and no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class Response(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())


# Of lists whose pages begin after a row's key.
KeyCursor = Annotated[
    str | None,
    Field(pattern=r"^[1-9][0-9]{0,17}$", description="The `next` of the page before."),
]
ModelName = Annotated[
    str | None,
    Field(max_length=MAX_NAME_CHARS, description="Which model; default: the task's default one."),
]


class PredictRequest(Request):
    """One text to classify."""

    model_config = ConfigDict(
        json_schema_extra=example({"text": "A film that stays with you for days.", "top_k": 2})
    )

    # The limit depends on the model; `http/api_document.py` puts the catalogue's into OpenAPI.
    text: Annotated[
        str,
        Field(
            min_length=1,
            description="At most `max_chars` of its model, which GET /models tells.",
        ),
    ]
    text_pair: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="A second text, for models that read two together, such as whether one follows"
        " from the other (NLI). As long as `text` may be.",
    )
    model_name: ModelName = None
    top_k: TopK | None = Field(None, description="Also answer the best so many `scores`.")


class LabelScore(Response):
    """One label and its score."""

    label: str
    score: Score


Truncated = Annotated[
    bool, Field(description="Whether the text was cut to the model's window of tokens.")
]


PredictionId = Annotated[
    str | None,
    Field(
        description="Of the text's entry in the log, to give feedback on; missing without a log."
        " An answer that is one entry says it in the header `X-Prediction-ID`."
    ),
]


class PredictResponse(Response):
    """The best label of one text."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "text": "A film that stays with you for days.",
                "label": "POSITIVE",
                "score": 0.9871,
                "model": "sentiment",
                "truncated": False,
                "scores": [
                    {"label": "POSITIVE", "score": 0.9871},
                    {"label": "NEGATIVE", "score": 0.0129},
                ],
            }
        )
    )

    text: str
    text_pair: str | None = None
    label: str
    score: Score
    model: str
    truncated: Truncated
    scores: list[LabelScore] | None = None
    problem_type: ProblemType = None


class PredictBatchRequest(Request):
    """Up to 256 texts to classify; an empty or overlong one gets an error of its own."""

    model_config = ConfigDict(
        json_schema_extra=example({"texts": ["Great value.", "", "It broke after a week."]})
    )

    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH_TEXTS)]
    text_pairs: Annotated[list[str], Field(max_length=MAX_BATCH_TEXTS)] | None = Field(
        None, description="A second text for each, in their order, for models that read pairs."
    )
    model_name: ModelName = None

    @model_validator(mode="after")
    def each_has_its_pair(self) -> Self:
        """Refuse second texts that are more or fewer than the first ones."""
        if self.text_pairs is not None and len(self.text_pairs) != len(self.texts):
            raise ValueError("text_pairs has to have as many texts as texts")
        return self


class TextResult(LabelScore):
    """The best label of a text of a batch."""

    truncated: Truncated
    prediction_id: PredictionId = None


class TextError(Response):
    """Why one text of a batch has no answer."""

    code: str
    detail: str


class FailedText(Response):
    """The place of a text of a batch that has no answer."""

    error: TextError

    @classmethod
    def of(cls, error: ServiceError) -> Self:
        """Return what stands in the place of an answer."""
        return cls(error=TextError(code=error.code, detail=error.detail))


class PredictBatchResponse(Response):
    """One result for each text, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "sentiment",
                "results": [
                    {"label": "POSITIVE", "score": 0.9934, "truncated": False},
                    {"error": {"code": "text_empty", "detail": "The text is empty."}},
                    {"label": "NEGATIVE", "score": 0.9702, "truncated": False},
                ],
            }
        )
    )

    model: str
    results: list[TextResult | FailedText]
    problem_type: ProblemType = None


class LoadProgress(Response):
    """How far a model that is being prepared has come."""

    step: str
    number: Annotated[int, Field(description="Of this step; the first has 1.")]
    of: Annotated[int, Field(description="Steps in all.")]
    seconds: Annotated[float, Field(description="Since loading began.")]


class ModelReadiness(Response):
    """The state of one model, why it failed where it did, and how far it is where it loads."""

    name: str
    state: ModelState
    required: bool
    reason: str | None = None
    progress: LoadProgress | None = None


class Readiness(Response):
    """The service takes traffic; what is degraded doesn't stop it."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "status": "ready",
                "models": [{"name": "sentiment", "state": "ready", "required": True}],
                "degraded": [],
            }
        )
    )

    status: Literal["ready"] = "ready"
    models: list[ModelReadiness]
    degraded: list[str]
