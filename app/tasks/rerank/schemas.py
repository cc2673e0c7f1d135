"""The wire contract of `/rerank`, and what it shares with those of Jina and Cohere."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from app.models.schemas import (
    MAX_TEXT_CHARS,
    ModelName,
    Request,
    Response,
    example,
    one_of_two,
    whole_number,
)

MAX_DOCUMENTS = 1_000


class TextDocument(Request):
    """A document as an object, as some clients send it."""

    text: str


Documents = Annotated[list[str | TextDocument], Field(min_length=1, max_length=MAX_DOCUMENTS)]
Query = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
TopN = Annotated[int, Field(ge=1), BeforeValidator(whole_number)]


class RerankFields(BaseModel):
    """What all dialects have."""

    query: Query
    top_n: TopN | None = Field(None, description="Answer the best so many; default: all.")


class RerankRequest(Request, RerankFields):
    """A query, and up to 1000 documents; a pair longer than the model's window is cut."""

    model_config = ConfigDict(
        json_schema_extra=one_of_two("documents", "texts")
        | example(
            {
                "query": "Which planet is known as the red one?",
                "documents": [
                    "Venus is often called Earth's twin.",
                    "Mars looks red because of iron oxide on its surface.",
                ],
                "top_n": 1,
                "return_documents": True,
            }
        )
    )

    documents: Documents | None = None
    texts: Documents | None = Field(None, description="Another name for `documents`.")
    return_documents: bool = Field(False, description="Answer the documents' texts too.")  # noqa: FBT003  # a default
    model_name: ModelName = None
    model: ModelName = Field(None, description="Another name for `model_name`.")

    @model_validator(mode="after")
    def has_documents_and_one_model(self) -> Self:
        """Refuse a body without documents, or that says one thing twice."""
        if (self.documents is None) == (self.texts is None):
            raise ValueError("either documents or texts")
        if self.model is not None and self.model_name is not None:
            raise ValueError("either model or model_name")
        return self


def texts_of(documents: list[str | TextDocument]) -> list[str]:
    """Return the documents' texts."""
    return [d if isinstance(d, str) else d.text for d in documents]


class RankedText(Response):
    """The text of a document."""

    text: str


class RankedDocument(Response):
    """A document's place in the request, and how well it answers the query."""

    index: int
    relevance_score: Annotated[
        float,
        Field(
            description="The higher, the better; from 0 to 1, unless the model's own files ask for"
            " its numbers as they are."
        ),
    ]
    document: RankedText | None = None


EXAMPLE: dict[str, Any] = {
    "index": 1,
    "relevance_score": 0.9714,
    "document": {"text": "Mars looks red because of iron oxide on its surface."},
}


class RerankResponse(Response):
    """The documents, the best first."""

    model_config = ConfigDict(
        json_schema_extra=example({"model": "reranker", "results": [EXAMPLE], "truncated": []})
    )

    model: str
    results: list[RankedDocument]
    truncated: Annotated[
        list[int],
        Field(
            description="Places of the documents that were cut, with the query, to the model's"
            " window: of a pair that is too long the longer text loses its end."
        ),
    ]
