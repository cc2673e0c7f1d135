"""Versions of models, as a feature: what operators change while they serve."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.features.versions.settings import VersionsSettings
    from app.runtime.runtime import Runtime


class Versions(Feature["VersionsSettings"]):
    """`/models/{model_name}/load`, `unload`, `promote` and `rollback`."""

    name = "versions"
    tags = MappingProxyType(
        {
            "versions": "Which versions of a model are loaded, and which one serves.",
        }
    )

    is_stored = True

    def settings(self) -> "type[VersionsSettings]":
        """Return the settings with those of versions."""
        from app.features.versions.settings import VersionsSettings

        return VersionsSettings

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return the routes that change models."""
        from app.features.versions.routes import catalogue_router, router

        return (catalogue_router, router)

    def open(
        self, runtime: "Runtime", settings: "VersionsSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Keep which versions serve."""
        from app.features.versions.opening import open_versions

        return open_versions(runtime, settings)


FEATURE = Versions()
