"""The wire contracts of `/v1/rerank`, as Jina has it, and `/v2/rerank`, as Cohere has it.

Fields of theirs that are accepted have no effect here; others are refused.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.errors import UnsupportedFieldError
from app.http.cuts import Cuts
from app.models.schemas import MAX_NAME_CHARS, Request, Response, example, whole_number
from app.tasks.rerank.schemas import EXAMPLE, Documents, RankedDocument, RerankFields

BODY = {
    "model": "reranker",
    "query": "Which planet is known as the red one?",
    "documents": [
        "Venus is often called Earth's twin.",
        "Mars looks red because of iron oxide on its surface.",
    ],
    "top_n": 1,
}
Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


class JinaRerankRequest(Request, RerankFields, Cuts):
    """A query, and up to 1000 documents; a pair longer than the model's window is cut."""

    model_config = ConfigDict(json_schema_extra=example(BODY))

    model: Name | None = None
    documents: Documents
    return_documents: bool = True


class CohereRerankRequest(Request, RerankFields, Cuts):
    """A query, and up to 1000 documents; a pair longer than the model's window is cut."""

    model_config = ConfigDict(json_schema_extra=example(BODY))

    model: Name
    documents: Documents
    return_documents: bool = False
    max_tokens_per_doc: Annotated[int, Field(ge=1), BeforeValidator(whole_number)] | None = Field(
        None,
        description="Refused where a document may be longer: it is cut to the model's window.",
    )
    priority: Annotated[int, Field(ge=0), BeforeValidator(whole_number)] | None = Field(
        None, description="Without effect."
    )

    def check_longest(self, tokens: int) -> None:
        """Refuse a bound of documents that has to cut one; with its query it is counted here.

        Args:
            tokens: of the longest pair.

        Raises:
            UnsupportedFieldError: it may have to.

        """
        if self.max_tokens_per_doc is not None and tokens > self.max_tokens_per_doc:
            raise UnsupportedFieldError(
                "max_tokens_per_doc",
                detail="Documents are cut to the model's window, to no other length."
                f" With its query one of these has {tokens} tokens.",
            )


class RerankUsage(Response):
    """Tokens of all pairs."""

    prompt_tokens: int
    total_tokens: int


class JinaRerankResponse(Response):
    """The documents, the best first."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "reranker",
                "object": "list",
                "usage": {"prompt_tokens": 38, "total_tokens": 38},
                "results": [EXAMPLE],
            }
        )
    )

    model: str
    object: Literal["list"] = "list"
    usage: RerankUsage
    results: list[RankedDocument]


class CohereVersion(Response):
    """Of Cohere's API."""

    version: Literal["2"] = "2"


class CohereMeta(Response):
    """What Cohere says of a request."""

    api_version: CohereVersion = CohereVersion()


class CohereRerankResponse(Response):
    """The documents, the best first."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "id": "5f6f3cf0",
                "results": [{"index": 1, "relevance_score": 0.9714}],
                "meta": {"api_version": {"version": "2"}},
            }
        )
    )

    id: Annotated[str, Field(description="The request's id.")]
    results: list[RankedDocument]
    meta: CohereMeta = CohereMeta()
