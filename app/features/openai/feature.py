"""OpenAI's API under `/v1`, as a feature."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.features.openai.metrics import OpenAiMetrics
    from app.features.openai.settings import OpenAiSettings
    from app.runtime.runtime import Runtime


class OpenAi(Feature["OpenAiSettings"]):
    """OpenAI's API: tasks bring their routes, this feature keeps responses and lists models."""

    name = "openai"
    tags = MappingProxyType(
        {
            "openai": "What clients of OpenAI's API call.",
        }
    )

    def settings(self) -> "type[OpenAiSettings]":
        """Return the settings with those of OpenAI's API."""
        from app.features.openai.settings import OpenAiSettings

        return OpenAiSettings

    def metrics(self) -> "type[OpenAiMetrics]":
        """Return the metrics of OpenAI's API."""
        from app.features.openai.metrics import OpenAiMetrics

        return OpenAiMetrics

    def open(
        self, runtime: "Runtime", settings: "OpenAiSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Keep responses."""
        from app.features.openai.opening import open_openai

        return open_openai(runtime, settings)

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":
        """Return the routes under `/v1`."""
        from app.features.openai.routes import router

        return (*(own for task in tasks for own in task.openai_routers()), router)


FEATURE = OpenAi()
