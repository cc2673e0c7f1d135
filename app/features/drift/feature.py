"""Whether inputs and answers have shifted, as a feature."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.features.drift.metrics import DriftMetrics
    from app.features.drift.settings import DriftSettings
    from app.runtime.runtime import Runtime


class DriftFeature(Feature["DriftSettings"]):
    """Counts answers in windows, and compares each with a reference."""

    name = "drift"
    tags = MappingProxyType(
        {
            "drift": "Whether what models are asked and answer has shifted.",
        }
    )

    def settings(self) -> "type[DriftSettings]":
        """Return the settings with those of drift."""
        from app.features.drift.settings import DriftSettings

        return DriftSettings

    def metrics(self) -> "type[DriftMetrics]":
        """Return the metrics of drift."""
        from app.features.drift.metrics import DriftMetrics

        return DriftMetrics

    def off_by(self, settings: "DriftSettings") -> str | None:
        """Say whether DRIFT turns it off."""
        return "DRIFT=off" if settings.drift == "off" else None

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/drift`."""
        from app.features.drift.routes import router

        return (router,)

    def open(
        self, runtime: "Runtime", settings: "DriftSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Count answers."""
        from app.features.drift.opening import open_drift

        return open_drift(runtime, settings)


FEATURE = DriftFeature()
