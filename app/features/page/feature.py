"""The page at `/`, as a feature."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI


class Page(Feature[Any]):
    """The page on which everything can be tried."""

    name = "page"

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/`."""
        from app.features.page.routes import router

        return (router,)

    def mount(self, app: "FastAPI") -> None:
        """Serve the page's files."""
        from app.features.page.routes import mount_static

        mount_static(app)


FEATURE = Page()
