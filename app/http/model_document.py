"""Adds to the OpenAPI document which tasks answer, and the paths of models with own schemas."""

import copy
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI

from app.http.version_headers import with_versions
from app.models.entries import ModelEntry
from app.runtime.kinds import answering_tasks
from app.runtime.plugins import Task
from app.runtime.runtime import Runtime

# An operation's own word for the tasks whose models answer it, as GET /models names them. The page
# shows with it what there is a model for.
TASKS = "x-tasks"


class ModelDocument:
    """Extends the document by what loaded models add; made anew when other models are loaded.

    Args:
        app: whose models they are.
        tasks: say what a model adds.
        needs_key: whether callers need a key.

    """

    def __init__(self, app: FastAPI, tasks: Sequence[Task], *, needs_key: bool) -> None:
        self._app = app
        self._tasks = {task.kind: task for task in tasks}
        self._needs_key = needs_key
        self._answering = answering_tasks(tasks)
        self._served: list[Any] = []  # what the document was made of
        self._extended: dict[str, Any] | None = None

    def __call__(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the document with the paths of the models that are loaded now."""
        entries = [entry for entry in self._entries() if entry.served is not None]
        served = [entry.served for entry in entries]
        if self._extended is None or served != self._served:
            self._served, self._extended = served, self._extend(document, entries)
        return self._extended

    def _entries(self) -> Sequence[ModelEntry]:
        """Return the models; none before the app is opened, as when its document is written."""
        runtime: Runtime | None = getattr(self._app.state, "runtime", None)
        return runtime.registry.entries if runtime is not None else ()

    def _extend(self, document: dict[str, Any], entries: Sequence[ModelEntry]) -> dict[str, Any]:
        added = [self._tasks[entry.spec.task].model_paths(entry) for entry in entries]
        paths: dict[str, Any] = {
            path: {
                method: {**with_versions(operation), TASKS: tasks}
                for method, operation in methods.items()
            }
            for path, methods in document["paths"].items()
            if (tasks := self._answering.get(path))
        }
        for entry, one in zip(entries, added, strict=True):
            for path, methods in one.paths.items():
                paths[path] = {
                    method: with_versions(copy.deepcopy(operation))
                    for method, operation in methods.items()
                }
                for operation in paths[path].values():
                    operation[TASKS] = [entry.spec.task]
                    if not self._needs_key:
                        operation["security"].append({})  # a key is accepted, but not needed
        schemas = {name: schema for one in added for name, schema in one.schemas.items()}
        components = document["components"]
        return {
            **document,
            "paths": document["paths"] | paths,
            "components": {**components, "schemas": components["schemas"] | schemas},
        }
