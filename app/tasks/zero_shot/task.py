"""The task's entry for `app/main.py`."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Task

if TYPE_CHECKING:
    import typer
    from fastapi import APIRouter

    from app.http.hub import HubTask
    from app.services.model_calls import AnswerCall


class ZeroShot(Task):
    """Labels of texts, of those that a request brings."""

    name = "zero_shot"
    kind = "zero-shot-classification"
    tags = MappingProxyType(
        {
            "zero-shot": "Which label of the request fits a text best.",
        }
    )
    example_model = "nli"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/zero-shot` and `/zero-shot-batch`."""
        from app.tasks.zero_shot.routes import router

        return (router,)

    def hub(self) -> "HubTask":
        """Return what it answers in Hugging Face's dialects."""
        from app.tasks.zero_shot.hub import HUB

        return HUB

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.zero_shot.calls import answer

        return answer

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app zero-shot`."""
        from app.tasks.zero_shot.commands import add_to

        add_to(cli)


TASK = ZeroShot()
