"""`/health`, `/ready` and `/metrics`: what machines ask about this process."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from app.api.deps import RuntimeDep
from app.api.problems import problems
from app.errors import NotReadyError, UnhealthyError
from app.models.schemas import Health, Readiness

router = APIRouter(tags=["operations"])


@router.get("/health", summary="Liveness", responses=problems(UnhealthyError))
async def health(runtime: RuntimeDep) -> Health:
    """Tell whether the process can do work; if not, restart it."""
    runtime.check_health()
    return Health()


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
    responses=problems() | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(runtime: RuntimeDep) -> Response:
    """Answer every metric in Prometheus' text format."""
    return Response(generate_latest(runtime.metrics.registry), media_type=CONTENT_TYPE_LATEST)
