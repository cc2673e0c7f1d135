"""Bodies of `/predict-batch/{name}`; those of `/predict/{name}` are its class's own."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from app.models.schemas import MAX_BATCH_TEXTS, Request, example


class PredictItemsRequest(Request):
    """Up to 256 items; one that is wrong gets an error of its own."""

    model_config = ConfigDict(json_schema_extra=example({"items": [[5.1, 3.5, 1.4, 0.2]]}))

    items: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH_TEXTS)]
