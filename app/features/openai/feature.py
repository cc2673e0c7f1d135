"""OpenAI's API under `/v1`, as a feature."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter


class OpenAi(Feature[Any]):
    """OpenAI's API: tasks bring their routes, this feature adds the list of models."""

    name = "openai"
    tags = MappingProxyType(
        {
            "openai": "What clients of OpenAI's API call.",
        }
    )

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":
        """Return the routes under `/v1`."""
        from app.features.openai.routes import router

        return (*(own for task in tasks for own in task.openai_routers()), router)


FEATURE = OpenAi()
