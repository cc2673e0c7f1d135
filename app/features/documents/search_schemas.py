"""The wire contract of `/search`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from app.models.schemas import MAX_NAME_CHARS as MAX_MODEL_CHARS
from app.models.schemas import MAX_TEXT_CHARS, ModelName, Request, Response, example, whole_number

MAX_TOP_K = 100
# For each document that is asked for so many are ranked anew, and at least as many as below.
CANDIDATES_PER_HIT = 3
LEAST_CANDIDATES = 20
MAX_CONDITIONS = 16
MAX_VALUES = 100
MAX_NAME_CHARS = 200
MAX_VALUE_CHARS = 1_000
NO_NUL = r"^[^\x00]*$"  # PostgreSQL can't store it

# SQLite's range of integers; fractions get a smaller one.
Integer = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
Fraction = Annotated[float, Field(ge=-(2**62), le=2**62)]
Number = Annotated[Integer | Fraction, BeforeValidator(whole_number)]
String = Annotated[str, Field(max_length=MAX_VALUE_CHARS, pattern=NO_NUL)]
Bound = Literal["gt", "gte", "lt", "lte"]


KINDS = {
    bool: "boolean",
    int: "number",
    float: "number",
    str: "string",
    type(None): "null",
    dict: "range",
}


def _kind(value: object) -> str | None:
    """Return the kind of condition or value, so that errors are about that kind only."""
    if isinstance(value, dict) and "in" in value:
        return "one_of"
    if isinstance(value, dict) and any(isinstance(bound, str) for bound in value.values()):
        return "string_range"
    return KINDS.get(type(value))


Value = Annotated[
    Annotated[String, Tag("string")]
    | Annotated[Number, Tag("number")]
    | Annotated[bool, Tag("boolean")]
    | Annotated[None, Tag("null")],
    Discriminator(
        _kind,
        custom_error_type="filter_value",
        custom_error_message="Not a string, number, boolean or null",
    ),
]
OneOf = dict[Literal["in"], Annotated[list[Value], Field(min_length=1, max_length=MAX_VALUES)]]
Condition = Annotated[
    Annotated[String, Tag("string")]
    | Annotated[Number, Tag("number")]
    | Annotated[bool, Tag("boolean")]
    | Annotated[None, Tag("null")]
    | Annotated[OneOf, Field(min_length=1), Tag("one_of")]
    | Annotated[dict[Bound, Number], Field(min_length=1), Tag("range")]
    | Annotated[dict[Bound, String], Field(min_length=1), Tag("string_range")],
    Discriminator(
        _kind,
        custom_error_type="filter_condition",
        custom_error_message="Not a string, number, boolean, null, {in: [...]} or a range",
    ),
]
FieldName = Annotated[str, Field(max_length=MAX_NAME_CHARS, pattern=NO_NUL)]


Candidates = Annotated[int, Field(ge=1, le=MAX_TOP_K), BeforeValidator(whole_number)]


class SearchRequest(Request):
    """What is looked for, in words, and among which documents."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "query": "a film about the sea",
                "top_k": 3,
                "filter": {
                    "lang": "en",
                    "kind": {"in": ["review", "essay"]},
                    "year": {"gte": 2000, "lt": 2010},
                },
            }
        )
    )

    query: Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
    top_k: Annotated[int, Field(ge=1, le=MAX_TOP_K), BeforeValidator(whole_number)] = 10
    filter: Annotated[
        dict[FieldName, Condition],
        Field(
            max_length=MAX_CONDITIONS,
            description="Conditions on top-level fields of the metadata, all of which must hold: a"
            " value, `in` with several values, or bounds `gt`, `gte`, `lt`, `lte` that are all"
            " numbers or all strings. A number never matches a string.",
        ),
    ] = Field(default_factory=dict)
    model_name: ModelName = None
    rerank: Annotated[str, Field(min_length=1, max_length=MAX_MODEL_CHARS)] | None = Field(
        None,
        description="The name of a model for text-ranking, which reads the query with the passage"
        " of each candidate; its order is the answer's.",
    )
    candidates: Candidates | None = Field(
        None,
        description="So many documents are found and ranked anew, at least `top_k`; default: three"
        " times as many, 20 to 100. Only with `rerank`.",
    )

    @model_validator(mode="after")
    def has_candidates_enough(self) -> Self:
        """Refuse candidates that nothing ranks, or that are fewer than the answer."""
        if self.candidates is None:
            return self
        if self.rerank is None:
            raise ValueError("candidates goes with rerank")
        if self.candidates < self.top_k:
            raise ValueError("candidates may not be fewer than top_k")
        return self

    @property
    def found(self) -> int:
        """How many documents are to be found, to answer the best of them."""
        if self.rerank is None:
            return self.top_k
        several = max(CANDIDATES_PER_HIT * self.top_k, LEAST_CANDIDATES)
        return self.candidates or min(several, MAX_TOP_K)


class FoundPassage(Response):
    """The part of the text that is nearest to the query, by its characters."""

    text: str
    start: int
    end: int


class SearchResult(Response):
    """One document that was found."""

    id: str
    score: Annotated[
        float,
        Field(
            description="Cosine of the query and the passage, 1 is equal; or as the model declares:"
            " an inner product, or a distance below 0. The nearer, the higher."
        ),
    ]
    relevance_score: Annotated[
        float | None,
        Field(description="Only there with `rerank`: how well the passage answers the query."),
    ] = None
    text: Annotated[str, Field(description="The whole document's.")]
    metadata: dict[str, Any]
    passage: FoundPassage


class SearchResponse(Response):
    """The documents that were found, the best first."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "results": [
                    {
                        "id": "moby-dick",
                        "score": 0.5713,
                        "text": "Call me Ishmael. Some years ago I thought I would sail about.",
                        "metadata": {"lang": "en", "kind": "essay", "year": 2001},
                        "passage": {
                            "text": "Some years ago I thought I would sail about.",
                            "start": 17,
                            "end": 61,
                        },
                    }
                ]
            }
        )
    )

    results: list[SearchResult]
