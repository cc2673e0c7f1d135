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


class TokenClassification(Task):
    """Entities in texts: names, places, parts of speech."""

    name = "token_classification"
    kind = "token-classification"
    tags = MappingProxyType({"ner": "Names, places and other entities in texts."})
    example_model = "names"

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/ner`, and `/predict/{model_name}` of its models."""
        from app.tasks.token_classification.routes import named_router, router

        return (router, named_router)

    def hub(self) -> "HubTask":
        """Return what it answers in Hugging Face's dialects."""
        from app.tasks.token_classification.hub import HUB

        return HUB

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.token_classification.calls import answer

        return answer

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app ner`."""
        from app.tasks.token_classification.commands import add_to

        add_to(cli)


TASK = TokenClassification()
