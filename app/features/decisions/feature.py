"""Decisions, as a feature."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

PATHS = ("/v1/decisions", "/v1/systemone")


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

    def request_kinds(self, tasks: Sequence[Task]) -> Mapping[str, RequestKind]:  # noqa: ARG002
        """Return `INFERENCE`: a model runs for each request."""
        return dict.fromkeys(PATHS, RequestKind.INFERENCE)


FEATURE = Decisions()
