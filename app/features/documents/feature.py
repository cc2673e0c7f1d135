"""Documents and semantic search, as a feature."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    import typer
    from fastapi import APIRouter

    from app.features.documents.metrics import SearchMetrics
    from app.features.documents.settings import DocumentsSettings
    from app.runtime.runtime import Runtime

PATH = "/documents"


class Documents(Feature["DocumentsSettings"]):
    """Documents that are stored, and found by what they mean."""

    name = "documents"
    tags = MappingProxyType(
        {
            "documents": "Stored texts.",
            "search": "The stored texts that are closest to a query.",
        }
    )
    needs = frozenset({"embedding"})
    is_stored = True

    def settings(self) -> "type[DocumentsSettings]":
        """Return the settings with those of documents."""
        from app.features.documents.settings import DocumentsSettings

        return DocumentsSettings

    def metrics(self) -> "type[SearchMetrics]":
        """Return the metrics of searches."""
        from app.features.documents.metrics import SearchMetrics

        return SearchMetrics

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/documents` and `/search`."""
        from app.features.documents import routes, search_routes

        return (routes.router, search_routes.router)

    def body_limits(self, settings: "DocumentsSettings") -> Mapping[str, int]:
        """Allow larger bodies, with many documents."""
        return {PATH: settings.max_documents_bytes}

    def open(
        self,
        runtime: "Runtime",
        settings: "DocumentsSettings",  # noqa: ARG002  # opening has no settings
    ) -> AbstractAsyncContextManager[None]:
        """Store and find documents."""
        from app.features.documents.opening import open_documents

        return open_documents(runtime)

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app search`, and the commands for vectors to `app db`."""
        from app.console.options import group
        from app.features.documents import commands, vector_commands

        commands.add_to(cli)
        vector_commands.add_to(group(cli, "db"))


FEATURE = Documents()
