"""The log of every answer, as a feature."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.features.prediction_log.metrics import PredictionLogMetrics
    from app.features.prediction_log.settings import PredictionLogSettings
    from app.runtime.runtime import Runtime


class PredictionLogFeature(Feature["PredictionLogSettings"]):
    """A row in SQL for each answer, which its caller can list and export."""

    name = "prediction_log"
    tags = MappingProxyType(
        {
            "predictions": "What was answered: pages of it, exports, and feedback on it.",
        }
    )
    is_stored = True

    def settings(self) -> "type[PredictionLogSettings]":
        """Return the settings with those of the log."""
        from app.features.prediction_log.settings import PredictionLogSettings

        return PredictionLogSettings

    def metrics(self) -> "type[PredictionLogMetrics]":
        """Return the metrics of the log."""
        from app.features.prediction_log.metrics import PredictionLogMetrics

        return PredictionLogMetrics

    def off_by(self, settings: "PredictionLogSettings") -> str | None:
        """Say whether PREDICTION_LOG turns it off."""
        return "PREDICTION_LOG=off" if settings.prediction_log == "off" else None

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/predictions`, feedback on them, and what compares versions by them."""
        from app.features.prediction_log import comparison_routes, feedback_routes, routes

        return (routes.router, feedback_routes.router, comparison_routes.router)

    def open(
        self, runtime: "Runtime", settings: "PredictionLogSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Log answers."""
        from app.features.prediction_log.opening import open_log

        return open_log(runtime, settings)


FEATURE = PredictionLogFeature()
