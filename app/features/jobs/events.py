"""`/jobs/{job_id}/events`: every change of a job, as server-sent events."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import format_sse_event
from pydantic_core import to_json
from starlette.responses import Response

from app.core.callers import Scope
from app.core.logs import request_id
from app.errors import (
    DatabaseUnavailableError,
    InvalidRequestError,
    JobNotFoundError,
    NotReadyError,
    OverloadedError,
    ServiceError,
)
from app.features.documents.deps import CollectionDep
from app.features.jobs.deps import PartDep
from app.features.jobs.routes import JobId
from app.features.jobs.schemas import JobInfo
from app.features.jobs.values import Job
from app.http.deps import RuntimeDep
from app.http.error_bodies import problem
from app.http.guard import Guard
from app.http.json_route import JsonRoute
from app.http.problems import WITH_KEY, problems
from app.http.streamed import NO_CONTENT, StreamedResponse
from app.runtime.runtime import Runtime

router = APIRouter(tags=["jobs"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.JOBS))])

HEARTBEAT_S = 15.0
MEDIA_TYPE = "text/event-stream"
# A parsed server-sent event; `data` is JSON.
EVENT = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("event", "id", "data")},
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An event `job` for each change, the job as its data; it ends after the"
        " final status. An event `error` has a problem as its data, and is the last.",
        "content": {MEDIA_TYPE: {"schema": EVENT}},
    },
    NO_CONTENT: {"description": "The job is finished, and `Last-Event-ID` is its last event."},
}


class JobEventsResponse(StreamedResponse):
    """Writes a job's changes until it is finished, or the client has left.

    Args:
        runtime: tells whether the process is shutting down.
        changes: of the job.
        seen: the `id` of the last event that the client has; None: it has none.
        path: of the request, for a problem.

    """

    def __init__(
        self,
        runtime: Runtime,
        changes: AsyncGenerator[Job | None],
        *,
        seen: str | None,
        path: str,
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        def fail(error: ServiceError) -> bytes:
            body = problem(error, path=path, request_id=request_id.get())
            return format_sse_event(event="error", data_str=_json(body))

        super().__init__(
            aclosing(_events(runtime, changes, seen=seen, heartbeat_s=heartbeat_s)),
            fail=fail,
            media_type=MEDIA_TYPE,
            cut_event="events_cut",
        )


async def _events(
    runtime: Runtime, changes: AsyncGenerator[Job | None], *, seen: str | None, heartbeat_s: float
) -> AsyncGenerator[bytes]:
    """Write changes, and a heartbeat when there are none.

    Raises:
        ServiceError: the last event is that error.

    """
    async with aclosing(changes):
        first = await anext(changes)
        if first is None or (first.status.is_final and _id(first) == seen):
            return  # a 204 makes a browser's EventSource stop asking
        yield _event(first)
        sent_s = time.monotonic()
        async for job in changes:
            if runtime.is_draining:
                raise NotReadyError("The service is shutting down.", retry_after_s=1)
            if job is not None or time.monotonic() - sent_s >= heartbeat_s:
                yield _event(job) if job else format_sse_event(comment="")
                sent_s = time.monotonic()


def _id(job: Job) -> str:
    return f"{job.updated_at.timestamp():.6f}"


def _event(job: Job) -> bytes:
    return format_sse_event(event="job", id=_id(job), data_str=_json(JobInfo.of(job)))


def _json(value: object) -> str:
    return to_json(value, ensure_ascii=True).decode()


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    responses=problems(
        *WITH_KEY,
        DatabaseUnavailableError,
        InvalidRequestError,
        JobNotFoundError,
        NotReadyError,
        OverloadedError,
    )
    | EVENTS,
    response_class=Response,
)
async def follow_job(
    job_id: JobId,
    runtime: RuntimeDep,
    part: PartDep,
    scope: CollectionDep,
    request: Request,
    last_event_id: Annotated[str | None, Header()] = None,
) -> JobEventsResponse:
    """Follow a job: it as it is now, and again at every change, until it is finished."""
    return JobEventsResponse(
        runtime, part.watch.watch(job_id, scope=scope), seen=last_event_id, path=request.url.path
    )
