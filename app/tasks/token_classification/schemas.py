"""The wire contract of `/ner`."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from app.models.schemas import (
    MAX_BATCH_TEXTS,
    FailedText,
    ModelName,
    PredictionId,
    Request,
    Response,
    example,
    one_of_two,
)

AggregationName = Literal["none", "simple", "first", "average", "max"]
EXAMPLE_ENTITIES = [
    {"label": "PER", "score": 0.9987, "text": "Ada Lovelace", "start": 0, "end": 12},
    {"label": "LOC", "score": 0.9969, "text": "London", "start": 22, "end": 28},
]


class NerRequest(Request):
    """One text, or up to 256, in which entities are found."""

    model_config = ConfigDict(
        json_schema_extra=one_of_two("text", "texts")
        | example({"text": "Ada Lovelace lived in London.", "aggregation": "simple"})
    )

    text: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="A text of at most `max_chars` of its model, which GET /models tells. One that"
        " is longer than the model's window is read in windows that overlap.",
    )
    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH_TEXTS)] | None = Field(
        None,
        description="Several, instead of `text`; an empty or overlong one gets an error of its"
        " own.",
    )
    model_name: ModelName = None
    aggregation: AggregationName = Field(
        "simple",
        description="How tokens become entities, as transformers' aggregation_strategy: each token"
        " by itself (none), neighbours with the same label together (simple), and that with words"
        " of one label: of their first token (first), the best on average (average), or of the"
        " surest token (max).",
    )

    @model_validator(mode="after")
    def has_one_of_both(self) -> Self:
        """Refuse a request with both, or with none."""
        if (self.text is None) == (self.texts is None):
            raise ValueError("either text or texts")
        return self


class Entity(Response):
    """An entity in a text."""

    label: Annotated[
        str,
        Field(description="Without B- and I-, unless tokens aren't aggregated."),
    ]
    score: Annotated[float, Field(description="A probability; of several tokens the mean.")]
    text: Annotated[str, Field(description="The text from `start` to `end`.")]
    start: Annotated[int, Field(description="Where it begins, in code points of the text.")]
    end: Annotated[int, Field(description="Where it ends, likewise.")]


class Entities(Response):
    """The entities of one text in their order."""

    entities: list[Entity]
    prediction_id: PredictionId = None


class NerResponse(Entities):
    """The entities of one text in their order, and the model that found them."""

    model_config = ConfigDict(
        json_schema_extra=example({"entities": EXAMPLE_ENTITIES, "model": "names"})
    )

    model: str


class NerBatchResponse(Response):
    """One result for each text, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "names",
                "results": [
                    {"entities": EXAMPLE_ENTITIES},
                    {"error": {"code": "text_empty", "detail": "The text is empty."}},
                ],
            }
        )
    )

    model: str
    results: list[Entities | FailedText]
