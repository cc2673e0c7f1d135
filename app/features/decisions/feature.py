"""Decisions, as a feature."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter


class Decisions(Feature[Any]):
    """Questions about a text, answered with a probability for each answer."""

    name = "decisions"
    tags = MappingProxyType(
        {
            "decisions": "How likely each answer to a question about a text is.",
        }
    )

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/v1/decisions` and `/v1/systemone`."""
        from app.features.decisions.routes import router

        return (router,)


FEATURE = Decisions()
