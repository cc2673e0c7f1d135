"""The task's entry for `app/main.py`."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.http.hub import HubTask
    from app.http.tensors import TensorTask
    from app.services.model_calls import AnswerCall


class Embedding(Task):
    """Vectors of texts."""

    name = "embedding"
    kind = "embedding"
    tags = MappingProxyType(
        {
            "embed": "Vectors of texts, and how close texts are.",
            "openai": "What clients of OpenAI's API call.",
        }
    )
    example_model = "minilm"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/embed` and `/similarity`."""
        from app.tasks.embedding import routes, similarity_routes

        return (routes.router, similarity_routes.router)

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.embedding.calls import answer

        return answer

    def openai_routers(self) -> "Sequence[APIRouter]":
        """Return `/v1/embeddings`."""
        from app.tasks.embedding.openai_routes import router

        return (router,)

    def hub(self) -> "HubTask":
        """Return what it answers in Hugging Face's dialects."""
        from app.tasks.embedding.hub import HUB

        return HUB

    def tensors(self) -> "TensorTask":
        """Return what it answers in the Open Inference Protocol."""
        from app.tasks.embedding.tensors import TENSORS

        return TENSORS


TASK = Embedding()
