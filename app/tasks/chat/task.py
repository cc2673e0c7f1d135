"""The task's entry for `app/main.py`."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Task

if TYPE_CHECKING:
    import typer
    from fastapi import APIRouter

    from app.http.hub import HubTask
    from app.services.model_calls import AnswerCall


class Chat(Task):
    """Answers to conversations, whole or token by token."""

    name = "chat"
    kind = "chat"
    tags = MappingProxyType(
        {
            "chat": "Chat: whole answers, and streams of tokens.",
            "openai": "What clients of OpenAI's API call.",
        }
    )
    example_model = "smollm2"
    request_kind = RequestKind.STREAM

    def routers(self) -> "Sequence[APIRouter]":
        """Return `/chat` and `/chat/stream`."""
        from app.tasks.chat.routes import router

        return (router,)

    def answer_call(self) -> "AnswerCall":
        """Return what answers Python classes that call these models."""
        from app.tasks.chat.calls import answer

        return answer

    def openai_routers(self) -> "Sequence[APIRouter]":
        """Return `/v1/chat/completions`, `/v1/completions` and `/v1/responses`."""
        from app.tasks.chat.completion_routes import router as completions
        from app.tasks.chat.openai_routes import router
        from app.tasks.chat.responses.routes import router as responses

        return (router, completions, responses)

    def kind_of(self, path: str) -> RequestKind:
        """Tell generations from reading kept responses."""
        return RequestKind.OTHER if "{response_id}" in path else self.request_kind

    def hub(self) -> "HubTask":
        """Return `/hf/{model_name}/v1/chat/completions`."""
        from app.tasks.chat.hub import HUB

        return HUB

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app chat`."""
        from app.tasks.chat.commands import add_to

        add_to(cli)


TASK = Chat()
