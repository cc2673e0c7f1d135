"""Bodies of `/embed-image`."""

from pydantic import ConfigDict

from app.http.images import EXAMPLE, Images
from app.models.schemas import ModelName, Request, Response, example


class EmbedImagesRequest(Request):
    """Up to 32 images to embed."""

    model_config = ConfigDict(json_schema_extra=example({"images": [EXAMPLE]}))

    images: Images
    model_name: ModelName = None


class EmbedImagesResponse(Response):
    """One vector for each image, in their order; of length 1 unless the model's entry says not."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {"model": "dino", "dimensions": 3, "embeddings": [[0.6, 0.0, 0.8]]}
        )
    )

    model: str
    dimensions: int
    embeddings: list[list[float]]
