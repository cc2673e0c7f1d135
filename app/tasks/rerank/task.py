"""The task's entry for `app/main.py`."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Task

if TYPE_CHECKING:
    import typer
    from fastapi import APIRouter

    from app.http.hub import HubTask
    from app.http.tensors import TensorTask
    from app.services.model_calls import AnswerCall


class Rerank(Task):
    """Texts in the order in which they answer a query."""

    name = "rerank"
    kind = "text-ranking"
    tags = MappingProxyType(
        {
            "rerank": "Which texts answer a query best.",
        }
    )
    example_model = "reranker"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/rerank`."""
        from app.tasks.rerank.routes import router

        return (router,)

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.rerank.calls import answer

        return answer

    def openai_routers(self) -> "Sequence[APIRouter]":
        """Return `/v1/rerank`, `/v2/rerank`, `/v1/score`: as Jina, Cohere and vLLM have them."""
        from app.tasks.rerank.client_routes import router

        return (router,)

    def hub(self) -> "HubTask":
        """Return what it answers in Hugging Face's dialects."""
        from app.tasks.rerank.hub import HUB

        return HUB

    def tensors(self) -> "TensorTask":
        """Return what it answers in the Open Inference Protocol."""
        from app.tasks.rerank.tensors import TENSORS

        return TENSORS

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app rerank`."""
        from app.tasks.rerank.commands import add_to

        add_to(cli)


TASK = Rerank()
