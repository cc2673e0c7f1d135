"""The Open Inference Protocol, as a feature."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app.core.request_kinds import RequestKind
from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from fastapi import APIRouter

INFER = ("/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{version}/infer")
PROBES = ("/v2/health/live", "/v2/health/ready")


class OpenInference(Feature[Any]):
    """Serves models to clients of Triton and KServe."""

    name = "open_inference"

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":
        """Return the routes under `/v2`."""
        from app.features.open_inference import infer_routes, repository_routes, routes

        known = {task.kind: tensors for task in tasks if (tensors := task.tensors())}
        return (
            routes.make_router(known),
            infer_routes.make_router(known),
            repository_routes.make_router(),
        )

    def request_kinds(self, tasks: Sequence[Task]) -> Mapping[str, RequestKind]:  # noqa: ARG002
        """Return the kinds of what runs models, and of what machines ask."""
        return dict.fromkeys(INFER, RequestKind.INFERENCE) | dict.fromkeys(
            PROBES, RequestKind.PROBE
        )


FEATURE = OpenInference()
