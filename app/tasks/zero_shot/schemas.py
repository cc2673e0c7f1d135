"""The wire contract of `/zero-shot` and `/zero-shot-batch`."""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.models.schemas import (
    MAX_BATCH_TEXTS,
    FailedText,
    LabelScore,
    ModelName,
    Request,
    Response,
    Truncated,
    example,
)

MAX_LABELS = 100
MAX_LABEL_CHARS = 200
MAX_PAIRS = 2_048  # texts times labels: what a request has the engine run
PLACE = "{}"
DEFAULT_TEMPLATE = "This example is {}."  # as transformers' pipeline has it


def _has_one_place(template: str) -> str:
    """Refuse a template without a place for the label, or with another one."""
    if template.count(PLACE) != 1 or set("{}") & set(template.replace(PLACE, "")):
        raise ValueError("has {} once, where the label belongs, and no other braces")
    return template


def _differ(labels: list[str]) -> list[str]:
    if len(set(labels)) != len(labels):
        raise ValueError("labels must differ")
    return labels


Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARS)]
Labels = Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS), AfterValidator(_differ)]
Template = Annotated[str, Field(max_length=MAX_LABEL_CHARS), AfterValidator(_has_one_place)]


class ZeroShotFields(BaseModel):
    """What texts are classified by."""

    labels: Annotated[Labels, Field(description="The labels to choose from, in words.")]
    multi_label: bool = Field(
        False,  # noqa: FBT003  # a default
        description="Several labels may be right: each has a probability of its own. Otherwise"
        " those of all labels sum up to 1.",
    )
    hypothesis_template: Template = Field(
        DEFAULT_TEMPLATE,
        description="Makes a sentence of a label, which follows from the text or not; {} stands for"
        " the label.",
    )

    def hypotheses(self) -> list[str]:
        """Return the sentence of each label."""
        return [self.hypothesis_template.replace(PLACE, label) for label in self.labels]


class ZeroShotRequest(Request, ZeroShotFields):
    """A text, and the labels to choose from."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "text": "The screen of my new phone stays black.",
                "labels": ["hardware", "billing", "praise"],
            }
        )
    )

    text: Annotated[
        str,
        Field(
            min_length=1, description="At most `max_chars` of its model, which GET /models tells."
        ),
    ]
    model_name: ModelName = None


class ZeroShotBatchRequest(Request, ZeroShotFields):
    """Up to 256 texts, and the labels to choose from; up to 2048 of texts times labels."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "texts": ["The screen of my new phone stays black.", "I was charged twice."],
                "labels": ["hardware", "billing"],
                "multi_label": True,
                "hypothesis_template": "This is about {}.",
            }
        )
    )

    texts: Annotated[list[str], Field(min_length=1, max_length=MAX_BATCH_TEXTS)]
    model_name: ModelName = None

    @model_validator(mode="after")
    def is_bounded(self) -> Self:
        """Refuse more work than one request may be."""
        if len(self.texts) * len(self.labels) > MAX_PAIRS:
            raise ValueError(f"texts times labels may be {MAX_PAIRS} at most")
        return self


class ZeroShotResult(LabelScore):
    """The labels of one text, the best first."""

    scores: list[LabelScore]
    truncated: Truncated


class ZeroShotResponse(ZeroShotResult):
    """The labels of the text, the best first."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "label": "hardware",
                "score": 0.9412,
                "scores": [
                    {"label": "hardware", "score": 0.9412},
                    {"label": "billing", "score": 0.0391},
                    {"label": "praise", "score": 0.0197},
                ],
                "truncated": False,
                "model": "nli",
            }
        )
    )

    model: str


class ZeroShotBatchResponse(Response):
    """One result for each text, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "nli",
                "results": [
                    {
                        "label": "hardware",
                        "score": 0.9412,
                        "scores": [
                            {"label": "hardware", "score": 0.9412},
                            {"label": "billing", "score": 0.0391},
                        ],
                        "truncated": False,
                    },
                    {"error": {"code": "text_empty", "detail": "The text is empty."}},
                ],
            }
        )
    )

    model: str
    results: list[ZeroShotResult | FailedText]
