"""The task's entry for `app/main.py`."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.services.model_calls import AnswerCall
    from app.settings import Settings

ONE, MANY = "/classify-image", "/classify-image-batch"


class ImageClassification(Task):
    """Labels of images."""

    name = "image_classification"
    kind = "image-classification"
    tags = MappingProxyType(
        {
            "images": "Labels and vectors of images.",
        }
    )
    example_model = "pets"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/classify-image` and `/classify-image-batch`."""
        from app.tasks.image_classification.routes import router

        return (router,)

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.image_classification.calls import answer

        return answer

    def body_limits(self, settings: "Settings") -> Mapping[str, int]:
        """Allow larger bodies than texts need."""
        return dict.fromkeys((ONE, MANY), settings.max_image_body_bytes)


TASK = ImageClassification()
