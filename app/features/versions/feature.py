"""Versions of models, as a feature: what operators change while they serve."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter


class Versions(Feature[Any]):
    """`/models/{model_name}/load`, `unload`, `promote` and `rollback`."""

    name = "versions"
    tags = MappingProxyType(
        {
            "versions": "Which versions of a model are loaded, and which one serves.",
        }
    )

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return the routes that change models."""
        from app.features.versions.routes import catalogue_router, router

        return (catalogue_router, router)


FEATURE = Versions()
