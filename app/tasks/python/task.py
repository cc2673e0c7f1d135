"""The task's entry for `app/main.py`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Task

if TYPE_CHECKING:
    import typer
    from fastapi import APIRouter

    from app.models.entries import ModelEntry
    from app.runtime.plugins import ModelPaths
    from app.services.model_calls import AnswerCall


class Python(Task):
    """What a class of the operator's does, in types of its own."""

    name = "python"
    kind = "python"

    def kind_of(self, path: str) -> RequestKind:
        """Tell streams, which take seconds, from calls."""
        return RequestKind.STREAM if path.endswith("/stream") else self.request_kind

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/predict/{name}` and `/predict-batch/{name}` of these models."""
        from app.tasks.python.routes import batch_router, router

        return (router, batch_router)

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.python.calls import answer

        return answer

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app call`."""
        from app.tasks.python.commands import add_to

        add_to(cli)

    def model_paths(self, entry: "ModelEntry") -> "ModelPaths":
        """Return the paths of a loaded model, with the schemas of its class."""
        from app.tasks.python.documenting import paths_of

        return paths_of(entry)


TASK = Python()
