"""Bodies of `/classify-image` and `/classify-image-batch`."""

from pydantic import ConfigDict, Field

from app.http.images import EXAMPLE, AnyImages, ImageContent
from app.models.schemas import (
    FailedText,
    LabelScore,
    ModelName,
    ProblemType,
    Request,
    Response,
    Score,
    TopK,
    example,
)

BEST = {"label": "tabby cat", "score": 0.8712}


class ClassifyImageRequest(Request):
    """One image to classify."""

    model_config = ConfigDict(json_schema_extra=example({"image": EXAMPLE, "top_k": 2}))

    image: ImageContent
    model_name: ModelName = None
    top_k: TopK | None = Field(None, description="Also answer the best so many `scores`.")


class ClassifyImageResponse(Response):
    """The best label of one image."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                **BEST,
                "model": "pets",
                "scores": [BEST, {"label": "Egyptian cat", "score": 0.0921}],
            }
        )
    )

    label: str
    score: Score
    model: str
    scores: list[LabelScore] | None = None
    problem_type: ProblemType = None


class ClassifyImagesRequest(Request):
    """Up to 32 images to classify; one that can't be read gets an error of its own."""

    model_config = ConfigDict(json_schema_extra=example({"images": [EXAMPLE], "top_k": 1}))

    images: AnyImages
    model_name: ModelName = None
    top_k: TopK | None = Field(None, description="Also answer the best so many `scores` of each.")


class ImageResult(LabelScore):
    """The best label of an image of a batch."""

    scores: list[LabelScore] | None = None


class ClassifyImagesResponse(Response):
    """One result for each image, in their order."""

    model_config = ConfigDict(
        json_schema_extra=example(
            {
                "model": "pets",
                "results": [
                    BEST,
                    {
                        "error": {
                            "code": "image_unreadable",
                            "detail": "The image is cut off or damaged.",
                        }
                    },
                ],
            }
        )
    )

    model: str
    results: list[ImageResult | FailedText]
    problem_type: ProblemType = None
