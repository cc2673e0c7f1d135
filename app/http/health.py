"""`/health`, `/ready` and `/metrics`: what machines ask about this service."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics import exposition

from app.core.callers import Scope
from app.errors import ForbiddenError, NotReadyError, UnhealthyError
from app.http.deps import RuntimeDep
from app.http.guard import AccessDep, Bearer, KeyHeader, get_caller
from app.http.problems import WITH_KEY, problems
from app.http.schemas import Health
from app.models.schemas import Readiness

router = APIRouter(tags=["operations"])

OPEN_METRICS = "application/openmetrics-text"
TEXT = {"schema": {"type": "string"}}


async def allow_metrics(
    request: Request, access: AccessDep, authorization: Bearer, key_header: KeyHeader
) -> None:
    """Ask for a key only where the settings say so: scrapers mostly have none."""
    if access.metrics_need_key:
        caller = await get_caller(request, authorization, key_header)
        if not caller.may(Scope.METRICS):
            raise ForbiddenError


@router.get(
    "/health",
    summary="Liveness",
    responses=problems(UnhealthyError),
    response_model_exclude_none=True,
)
async def health(runtime: RuntimeDep) -> Health:
    """Tell whether the process can do work; if not, restart it."""
    runtime.check_health()
    return Health(restarting=runtime.restarting() or None)


@router.get(
    "/ready",
    summary="Readiness",
    responses=problems(NotReadyError),
    response_model_exclude_none=True,
)
async def ready(runtime: RuntimeDep) -> Readiness:
    """Tell whether to send traffic: every required model is warm, no shutdown has begun."""
    runtime.check_ready()
    return runtime.readiness()


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    responses=problems(*WITH_KEY, UnhealthyError)
    | {200: {"content": dict.fromkeys(("text/plain", OPEN_METRICS), TEXT)}},
)
async def metrics(
    request: Request, runtime: RuntimeDep, _: Annotated[None, Depends(allow_metrics)]
) -> Response:
    """Answer every metric in Prometheus' text format; with front ends, those of all together.

    Who accepts OpenMetrics gets that, which also has exemplars: traces of single requests. With
    front ends there are none.
    """
    if runtime.all_metrics is not None:
        return Response(await runtime.all_metrics(), media_type=CONTENT_TYPE_LATEST)
    registry = runtime.metrics.registry
    # The library's own choice fails on an Accept whose version is no number.
    if OPEN_METRICS in request.headers.get("accept", ""):
        written = exposition.generate_latest(registry)  # type: ignore[no-untyped-call]  # the library's omission
        return Response(written, media_type=exposition.CONTENT_TYPE_LATEST)
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
