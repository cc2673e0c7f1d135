"""The wire contract of `/embed` and `/similarity`, and what they share with `/v1/embeddings`."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.models.schemas import (
    MAX_BATCH_TEXTS,
    MAX_NAME_CHARS,
    ModelName,
    Request,
    Response,
    example,
    whole_number,
)


class EmbeddingFields(BaseModel):
    """How texts are embedded; without a word, as the model's files say."""

    dimensions: Annotated[int, Field(ge=1), BeforeValidator(whole_number)] | None = Field(
        None,
        description="So many dimensions of each vector, the first ones; scaled to length 1 again"
        " where the model's own vectors are. For models that were trained for it (Matryoshka).",
    )
    prompt_name: Annotated[str, Field(max_length=MAX_NAME_CHARS)] | None = Field(
        None,
        description="The name of the model's prompt that is put before each text. Without one it is"
        " the model's default, if it has one.",
    )
    input_type: Literal["query", "document"] | None = Field(
        None,
        description="What the texts are; the same as the prompt_name of that name, and not to be"
        " used with it.",
    )

    @model_validator(mode="after")
    def has_one_prompt(self) -> Self:
        """Refuse a prompt name together with an input type."""
        if self.prompt_name is not None and self.input_type is not None:
            raise ValueError("either prompt_name or input_type")
        return self


class EmbedRequest(Request, EmbeddingFields):
    """Up to 256 texts to embed; a longer one than the model's window is cut."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {"texts": ["A cat sat on the mat.", "Interest rates rose."], "input_type": "document"}
        )
    )

    texts: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_BATCH_TEXTS),
    ]
    model_name: ModelName = None


class EmbedResponse(Response):
    """One vector for each text, in their order; of length 1 where the model's own are."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "minilm",
                "dimensions": 3,
                "embeddings": [[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]],
                "truncated": [],
            }
        )
    )

    model: str
    dimensions: int
    embeddings: list[list[float]]
    truncated: Annotated[
        list[int], Field(description="Places of the texts that were cut to the model's window.")
    ]


class SimilarityRequest(Request, EmbeddingFields):
    """A text, and up to 256 to compare with it; a longer one than the window is cut."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "source": "A cat sat on the mat.",
                "texts": ["A kitten lies on a rug.", "Interest rates rose."],
            }
        )
    )

    source: Annotated[str, Field(min_length=1)]
    texts: Annotated[
        list[Annotated[str, Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_BATCH_TEXTS),
    ]
    model_name: ModelName = None


class SimilarityResponse(Response):
    """How close each text is to the source, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "minilm",
                "scores": [0.7021, 0.0154],
                "source_truncated": False,
                "truncated": [],
            }
        )
    )

    model: str
    scores: Annotated[
        list[float],
        Field(
            description="Cosines: 1 where two texts mean the same to the model, 0 or less where"
            " they have nothing in common."
        ),
    ]
    source_truncated: Annotated[
        bool, Field(description="Whether the source was cut to the model's window.")
    ]
    truncated: Annotated[
        list[int], Field(description="Places of the texts that were cut to the model's window.")
    ]
