"""OpenAI's files and batches, as a feature."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

    from app.features.openai_batches.metrics import BatchesMetrics
    from app.features.openai_batches.settings import OpenAiBatchesSettings
    from app.runtime.runtime import Runtime

UPLOAD_PATH = "/v1/files"
# Of the form around a file.
FORM_BYTES = 65_536


class OpenAiBatches(Feature["OpenAiBatchesSettings"]):
    """OpenAI's files and batches: requests that are answered when the models have nothing to do."""

    name = "openai_batches"
    tags = MappingProxyType(
        {
            "batches": "Many requests in one file, answered within a day while no client waits.",
        }
    )
    needs = frozenset({"documents", "jobs", "openai"})
    is_stored = True

    def settings(self) -> "type[OpenAiBatchesSettings]":
        """Return the settings with those of files and batches."""
        from app.features.openai_batches.settings import OpenAiBatchesSettings

        return OpenAiBatchesSettings

    def metrics(self) -> "type[BatchesMetrics]":
        """Return the metrics of files and batches."""
        from app.features.openai_batches.metrics import BatchesMetrics

        return BatchesMetrics

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/v1/files` and `/v1/batches`."""
        from app.features.openai_batches import file_routes, routes

        return (file_routes.router, routes.router)

    def streamed_bodies(self, settings: "OpenAiBatchesSettings") -> Mapping[str, int]:
        """Let a file come piece by piece."""
        return {UPLOAD_PATH: settings.batch_file_bytes + FORM_BYTES}

    def open(
        self, runtime: "Runtime", settings: "OpenAiBatchesSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Take files and batches, and run lines while no client waits."""
        from app.features.openai_batches.opening import open_batches

        return open_batches(runtime, settings)


FEATURE = OpenAiBatches()
