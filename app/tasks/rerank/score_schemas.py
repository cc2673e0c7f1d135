"""The wire contract of `/v1/score`, as vLLM has it."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from app.http.cuts import Cuts
from app.http.openai_schemas import Ignored, OpenAiRequest, listed
from app.models.schemas import MAX_NAME_CHARS, Response, example
from app.tasks.rerank.client_schemas import RerankUsage
from app.tasks.rerank.schemas import MAX_DOCUMENTS

Text = Annotated[str, Field(min_length=1)]
Some = Annotated[list[Text], Field(min_length=1, max_length=MAX_DOCUMENTS)]
Texts = Annotated[Some, BeforeValidator(listed, json_schema_input_type=Text | Some)]
BODY = {
    "model": "reranker",
    "text_1": "Which planet is known as the red one?",
    "text_2": [
        "Venus is often called Earth's twin.",
        "Mars looks red because of iron oxide on its surface.",
    ],
}


class ScoreRequest(OpenAiRequest, Cuts):
    """One text and up to 1000 others, or as many texts as others; too long a pair is cut."""

    model_config = ConfigDict(json_schema_extra=example(BODY))

    model: Annotated[str, Field(max_length=MAX_NAME_CHARS)] | None = Field(
        None, description="Which model; default: the task's default one."
    )
    text_1: Annotated[Texts, Field(description="The query, or one for each of `text_2`.")]
    text_2: Texts
    user: Ignored = None

    @model_validator(mode="after")
    def has_pairs(self) -> Self:
        """Refuse texts that can't be paired."""
        if len(self.text_1) not in {1, len(self.text_2)}:
            raise ValueError("text_1 must be one text, or as many as text_2")
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """Return what the model is given."""
        first = self.text_1 * len(self.text_2) if len(self.text_1) == 1 else self.text_1
        return list(zip(first, self.text_2, strict=True))


class TextScore(Response):
    """How well a pair fits."""

    index: int
    object: Literal["score"] = "score"
    score: Annotated[float, Field(description="As the relevance_score of `/rerank`.")]


class ScoreResponse(Response):
    """The scores in the order of the pairs."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "id": "score-5f6f3cf0",
                "object": "list",
                "created": 1795348800,
                "model": "reranker",
                "data": [
                    {"index": 0, "object": "score", "score": 0.0021},
                    {"index": 1, "object": "score", "score": 0.9714},
                ],
                "usage": {"prompt_tokens": 38, "total_tokens": 38},
            }
        )
    )

    id: Annotated[str, Field(description="Has the request's id.")]
    object: Literal["list"] = "list"
    created: Annotated[int, Field(description="In seconds since 1970.")]
    model: str
    data: list[TextScore]
    usage: RerankUsage
