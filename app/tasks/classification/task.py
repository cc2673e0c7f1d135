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


class Classification(Task):
    """Labels of texts."""

    name = "classification"
    kind = "text-classification"
    tags = MappingProxyType(
        {
            "predict": "Which label fits a text best.",
        }
    )
    example_model = "sentiment"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/predict`, `/predict/{model_name}` and `/predict-batch`."""
        from app.tasks.classification.routes import router

        return (router,)

    def hub(self) -> "HubTask":
        """Return what it answers in Hugging Face's dialects."""
        from app.tasks.classification.hub import HUB

        return HUB

    def tensors(self) -> "TensorTask":
        """Return what it answers in the Open Inference Protocol."""
        from app.tasks.classification.tensors import TENSORS

        return TENSORS

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.classification.calls import answer

        return answer

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app predict`."""
        from app.tasks.classification.commands import add_to

        add_to(cli)


TASK = Classification()
