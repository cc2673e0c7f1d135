"""Which kind of request each route is for, and whose models answer it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Feature, Task

PROBES = ("/health", "/ready", "/metrics")


def request_kinds(
    tasks: Sequence[Task], features: Iterable[Feature[Any]] = ()
) -> Mapping[str, RequestKind]:
    """Return the kinds by the paths of routes; what isn't there is `OTHER`.

    Args:
        tasks: each says of which kind the requests to its routes are.
        features: likewise, where its routes run models.

    """
    of_tasks = {path: task.kind_of(path) for task in tasks for path in _paths(task)}
    of_features = {p: kind for f in features for p, kind in f.request_kinds(tasks).items()}
    return of_tasks | of_features | dict.fromkeys(PROBES, RequestKind.PROBE)


def answering_tasks(tasks: Iterable[Task]) -> Mapping[str, Sequence[str]]:
    """Return the kinds of the tasks whose models answer a route, by its path."""
    answering: dict[str, list[str]] = {}
    for task in tasks:
        for path in _paths(task):
            answering.setdefault(path, []).append(task.kind)
    return answering


def _paths(task: Task) -> Iterable[str]:
    """Return the paths of a task's routes, each once."""
    routers = (*task.routers(), *task.openai_routers())
    routes = [route for router in routers for route in router.routes]
    return dict.fromkeys(route.path for route in routes if hasattr(route, "path"))
