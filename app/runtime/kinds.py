"""Which kind of request each route is for."""

from collections.abc import Iterable, Mapping

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Task

PROBES = ("/health", "/ready", "/metrics")


def request_kinds(tasks: Iterable[Task]) -> Mapping[str, RequestKind]:
    """Return the kinds by the paths of routes; what isn't there is `OTHER`.

    Args:
        tasks: each says of which kind the requests to its routes are.

    """
    of_tasks = {
        route.path: task.kind_of(route.path)
        for task in tasks
        for router in (*task.routers(), *task.openai_routers())
        for route in router.routes
        if hasattr(route, "path")
    }
    return of_tasks | dict.fromkeys(PROBES, RequestKind.PROBE)
