"""Routes that several tasks have at one path, such as `/predict/{model_name}`.

The model that a request names decides which task answers it: a route of this kind takes only the
models of its task. The one that takes all other names, also those of no model, comes after it.
"""

from typing import ClassVar

from starlette.routing import Match
from starlette.types import Scope

from app.http.json_route import JsonRoute


class ModelRoute(JsonRoute):
    """A route for the models of one task; a subclass says which.

    Attributes:
        kind: what models.toml calls the task.

    """

    kind: ClassVar[str]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match a path that names a model of this task."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE:
            name = child_scope["path_params"]["model_name"]
            if scope["app"].state.runtime.registry.spec(name, self.kind) is None:
                return Match.NONE, {}
        return match, child_scope
