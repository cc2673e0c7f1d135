"""`/jobs/{job_id}/events`: every change of a job, as server-sent events."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import format_sse_event
from pydantic_core import to_json
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

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
from app.runtime.runtime import Runtime

log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"], route_class=JsonRoute, dependencies=[Depends(Guard(Scope.JOBS))])

HEARTBEAT_S = 15.0
# A reader that takes nothing for so long has stopped.
SEND_TIMEOUT_S = 30.0
NO_CONTENT = 204
MEDIA_TYPE = "text/event-stream"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Accel-Buffering": "no",  # nginx would keep events until it has a page of them
    "Cache-Control": "no-cache, no-transform",  # proxies would compress, and so collect, events
}
# What a reader of server-sent events makes of one; `data` is JSON.
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


class JobEventsResponse(StreamingResponse):
    """Writes a job's changes until it is finished, or the client has left.

    Until the first event an error is raised as from any route; afterwards it is the last event.

    Args:
        runtime: says whether the process is ending.
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
        super().__init__((), media_type=MEDIA_TYPE, headers=HEADERS)
        self._runtime = runtime
        self._events = changes
        self._seen = seen
        self._path = path
        self._heartbeat_s = heartbeat_s

    async def stream_response(self, send: Send) -> None:
        """Send the events.

        Raises:
            ServiceError: before anything is sent.

        """
        async with aclosing(self._events):
            first = await anext(self._events)
            if first is not None and first.status.is_final and _id(first) == self._seen:
                # What makes a browser's EventSource stop asking.
                self.status_code = NO_CONTENT
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            try:
                if self.status_code != NO_CONTENT and first is not None:
                    await self._send_all(first, send)
                await self._send(send, b"", more=False)
            except TimeoutError:
                log.warning("events_cut", extra={"reason": "reader_too_slow"})

    async def _send_all(self, first: Job, send: Send) -> None:
        """Send what comes, and a heartbeat where nothing does."""
        await self._send(send, _event(first))
        sent_s = time.monotonic()
        try:
            async for job in self._events:
                if self._runtime.is_draining:
                    raise NotReadyError("The service is shutting down.", retry_after_s=1)
                is_silent = time.monotonic() - sent_s >= self._heartbeat_s
                if job is not None or is_silent:
                    await self._send(send, _event(job) if job else format_sse_event(comment=""))
                    sent_s = time.monotonic()
        except ServiceError as error:
            told = problem(error, path=self._path, request_id=request_id.get())
            await self._send(send, format_sse_event(event="error", data_str=_json(told)))

    async def _send(self, send: Send, piece: bytes, *, more: bool = True) -> None:
        """Send a piece; waits while the reader is slow.

        Raises:
            TimeoutError: it takes nothing.

        """
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await send({"type": "http.response.body", "body": piece, "more_body": more})


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
