"""The wire contract of `/models/{model_name}/load` and its kin."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.models.schemas import MAX_NAME_CHARS, Request, Response, example

Version = Annotated[
    str | None,
    Field(
        min_length=1,
        max_length=MAX_NAME_CHARS,
        description="Of those that the operator's catalogue has.",
    ),
]


class SwapRequest(Request):
    """Which version is meant."""

    model_config = ConfigDict(json_schema_extra=example({"version": "2"}))

    version: Version = None


class PromoteRequest(SwapRequest):
    """Which version is to answer, and how many requests."""

    model_config = ConfigDict(json_schema_extra=example({"version": "2", "percent": 10}))

    percent: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="Its share of the requests; the version that serves keeps the others. Without"
        " it the version serves from then on, and gets all.",
    )


class AppliedModel(Response):
    """What became of a model whose entry has changed."""

    model: str
    outcome: Literal["added", "changed", "removed", "failed"]
    reason: str | None = Field(None, description="Why it failed; it serves as before.")


class AppliedList(Response):
    """The models whose entries have changed."""

    model_config = ConfigDict(
        json_schema_extra=example({"models": [{"model": "sentiment", "outcome": "changed"}]})
    )

    models: list[AppliedModel]
