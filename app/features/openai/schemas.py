"""The wire contract of `/v1/models`."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.models.schemas import Response, example

SMOLLM2 = {
    "id": "smollm2",
    "object": "model",
    "created": 1795348800,
    "owned_by": "ml-api",
    "tasks": ["chat"],
}


class OpenAiModel(Response):
    """One model that can be used here."""

    model_config = ConfigDict(json_schema_extra=example(SMOLLM2))

    id: str
    object: Literal["model"] = "model"
    created: Annotated[int, Field(description="When it was loaded, in seconds since 1970.")]
    owned_by: str = "ml-api"
    tasks: Annotated[list[str], Field(description="What it does, as GET /models says it.")]


class OpenAiModels(Response):
    """The models that can be used here now."""

    model_config = ConfigDict(json_schema_extra=example({"object": "list", "data": [SMOLLM2]}))

    object: Literal["list"] = "list"
    data: list[OpenAiModel]
