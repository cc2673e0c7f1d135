"""Hugging Face's dialects, as a feature."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

PATHS = ("POST /", "/hf/{model_name}", "/tei/tokenize")  # besides those of tasks


class HuggingFace(Feature[Any]):
    """Serves what tasks answer to clients of Hugging Face and of text-embeddings-inference."""

    name = "huggingface"

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":
        """Return the routes at `/`, under `/hf` and under `/tei`."""
        from app.features.huggingface import routes, tei_routes

        hubs = {task.kind: hub for task in tasks if (hub := task.hub())}
        of_tasks = [router for hub in hubs.values() for router in hub.routers]
        return (*of_tasks, routes.make_router(hubs), tei_routes.make_router(hubs))

    def request_kinds(self, tasks: Sequence[Task]) -> Mapping[str, RequestKind]:
        """Return the kinds of the requests that run models."""
        kinds = dict.fromkeys(PATHS, RequestKind.INFERENCE)
        for task in tasks:
            if hub := task.hub():
                kinds |= {f"/tei/{name}": task.request_kind for name in hub.tei}
                routes = [route for router in hub.routers for route in router.routes]
                kinds |= {r.path: task.request_kind for r in routes if hasattr(r, "path")}
        return kinds


FEATURE = HuggingFace()
