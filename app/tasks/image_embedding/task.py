"""The task's entry for `app/main.py`."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.services.model_calls import AnswerCall
    from app.settings import Settings

PATH = "/embed-image"


class ImageEmbedding(Task):
    """Vectors of images."""

    name = "image_embedding"
    kind = "image-embedding"
    tags = MappingProxyType(
        {
            "images": "Labels and vectors of images.",
        }
    )
    example_model = "dino"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/embed-image`."""
        from app.tasks.image_embedding.routes import router

        return (router,)

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.image_embedding.calls import answer

        return answer

    def body_limits(self, settings: "Settings") -> Mapping[str, int]:
        """Allow larger bodies than texts need."""
        return {PATH: settings.max_image_body_bytes}


TASK = ImageEmbedding()
