"""What files and batches open for the life of the process: their services, and what runs lines."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from app.core.background import run_in_background
from app.features.jobs.policy import RetryPolicy
from app.features.openai_batches.file_service import MB, FileBounds, FileService
from app.features.openai_batches.idle import IdleCapacity
from app.features.openai_batches.line_runner import LineRunner
from app.features.openai_batches.lines import AROUND_BYTES
from app.features.openai_batches.metrics import BatchesMetrics
from app.features.openai_batches.retention import batch_retention, file_retention
from app.features.openai_batches.runner import BatchRunner
from app.features.openai_batches.service import BatchService
from app.features.openai_batches.settings import OpenAiBatchesSettings
from app.features.openai_batches.turn import TurnPolicy, TurnTools
from app.features.openai_batches.upload import UploadBounds, Uploads
from app.runtime.runtime import Runtime

DAY_S = 86_400
# An upload that is longer than it may take was left by a process that died.
ABANDONED = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchesPart:
    """What the routes of `/v1/files` and `/v1/batches` use."""

    files: FileService
    uploads: Uploads
    batches: BatchService


@asynccontextmanager
async def open_batches(runtime: Runtime, settings: OpenAiBatchesSettings) -> AsyncIterator[None]:
    """Take files and batches, and run batches, during the block."""
    database = runtime.require_database()
    metrics = BatchesMetrics(runtime.metrics.registry)
    bounds = FileBounds(
        count=settings.batch_files_per_key,
        total_bytes=settings.batch_files_mb * MB,
        lifetime_s=_days(settings.batch_file_days),
    )
    files = FileService(database, bounds=bounds)
    runner = _runner(runtime, settings, files, metrics)
    uploads = UploadBounds(
        at_once=settings.batch_uploads,
        seconds=settings.batch_upload_s,
        file_bytes=settings.batch_file_bytes,
    )
    runtime.provide(
        BatchesPart(
            files=files,
            uploads=Uploads(files, bounds=uploads, metrics=metrics),
            batches=BatchService(
                database, max_open=settings.batches_per_key, bounds=bounds, notify=runner.notify
            ),
        )
    )

    async def ready() -> None:
        await runtime.stored.wait()
        await runtime.loaded.wait()

    async with AsyncExitStack() as stack:
        expiry = file_retention(database, abandoned_s=ABANDONED * settings.batch_upload_s)
        await stack.enter_async_context(expiry.running(after=runtime.stored.wait))
        if (age_s := _days(settings.batch_retention_days)) is not None:
            old = batch_retention(database, age_s=age_s)
            await stack.enter_async_context(old.running(after=runtime.stored.wait))
        await stack.enter_async_context(run_in_background(runner.run, name="batches", after=ready))
        yield


def _runner(
    runtime: Runtime,
    settings: OpenAiBatchesSettings,
    files: FileService,
    metrics: BatchesMetrics,
) -> BatchRunner:
    requests = runtime.own_requests
    assert requests is not None  # noqa: S101  # a process with features has routes
    idle = IdleCapacity(
        requests.clients,
        yield_s=settings.batch_yield_ms / 1000,
        is_closed=lambda: runtime.is_overloaded() or runtime.is_draining,
    )
    lines = LineRunner(requests, access=runtime.access, idle=idle, metrics=metrics)
    return BatchRunner(
        TurnTools(database=runtime.require_database(), files=files, lines=lines, metrics=metrics),
        policy=TurnPolicy(
            lines_at_once=settings.batch_lines_at_once,
            max_lines=settings.batch_lines,
            max_line_bytes=settings.max_body_bytes + AROUND_BYTES,
            output_bytes=settings.batch_output_mb * MB,
            file_s=_days(settings.batch_file_days),
            lease_s=settings.job_lease_s,
            retry=RetryPolicy(attempts=settings.job_attempts),
        ),
        is_closing=lambda: runtime.is_draining,
    )


def _days(days: int) -> int | None:
    """Return seconds; None for 0, which means for ever."""
    return days * DAY_S or None
