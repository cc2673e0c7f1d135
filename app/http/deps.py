"""Dependencies of routes: the runtime's objects, and the deadline."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Header, Request

from app.batching.deadline import Deadline
from app.models.registry import ModelRegistry
from app.runtime.runtime import Runtime
from app.services.inference import InferenceService

MAX_TIMEOUT_MS = 3_600_000


async def get_runtime(request: Request) -> Runtime:
    """Return the runtime that the lifespan made."""
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
P = TypeVar("P")


def part(kind: type[P]) -> Callable[[RuntimeDep], Awaitable[P]]:
    """Return the dependency for an object that a feature has provided."""

    async def get_part(runtime: RuntimeDep) -> P:
        return runtime.part(kind)

    return get_part


async def get_registry(runtime: RuntimeDep) -> ModelRegistry:
    """Return the registry; tests override this one to serve models of their own."""
    return runtime.registry


RegistryDep = Annotated[ModelRegistry, Depends(get_registry)]
RequestedTimeout = Annotated[
    int,
    Header(
        alias="x-request-timeout-ms",
        ge=1,
        le=MAX_TIMEOUT_MS,
        description="Milliseconds after which the answer is of no use to the client; the"
        " service's own limit (REQUEST_TIMEOUT_MS, CHAT_TIMEOUT_MS) holds too.",
    ),
]


async def get_deadline(
    request: Request, runtime: RuntimeDep, requested_ms: RequestedTimeout = MAX_TIMEOUT_MS
) -> Deadline:
    """Return the deadline that the client asks for, but at most the setting's."""
    return _deadline(request, min(requested_ms, runtime.policy.request_timeout_ms))


async def get_chat_deadline(
    request: Request, runtime: RuntimeDep, requested_ms: RequestedTimeout = MAX_TIMEOUT_MS
) -> Deadline:
    """Return the same for chat, whose answers take longer: the deadline of the last token."""
    return _deadline(request, min(requested_ms, runtime.policy.chat_timeout_ms))


def _deadline(request: Request, timeout_ms: int) -> Deadline:
    return Deadline(at_s=request.state.received_s + timeout_ms / 1000)


DeadlineDep = Annotated[Deadline, Depends(get_deadline)]
ChatDeadlineDep = Annotated[Deadline, Depends(get_chat_deadline)]


async def get_inference(registry: RegistryDep, runtime: RuntimeDep) -> InferenceService:
    """Return the service that runs texts on the registry's models."""
    return InferenceService(registry, runtime.results)


InferenceDep = Annotated[InferenceService, Depends(get_inference)]
