"""Jobs that survive restarts, their workers and webhooks, as a feature."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING

from app.runtime.plugins import Feature, Task

if TYPE_CHECKING:
    from pathlib import Path

    import typer
    from fastapi import APIRouter

    from app.core.finding import Finding
    from app.core.metrics import Metrics
    from app.features.jobs.metrics import JobMetrics
    from app.features.jobs.settings import JobsSettings
    from app.runtime.runtime import Runtime

SUBMIT_PATH = "/embed-batch"


class Jobs(Feature["JobsSettings"]):
    """Work on many documents that goes on when the service is restarted."""

    name = "jobs"
    tags = MappingProxyType(
        {
            "jobs": "Work that goes on after the answer: submit, follow, cancel.",
        }
    )
    needs = frozenset({"documents"})
    is_stored = True

    def settings(self) -> "type[JobsSettings]":
        """Return the settings with those of jobs."""
        from app.features.jobs.settings import JobsSettings

        return JobsSettings

    def metrics(self) -> "type[JobMetrics]":
        """Return the metrics of jobs."""
        from app.features.jobs.metrics import JobMetrics

        return JobMetrics

    def off_by(self, settings: "JobsSettings") -> str | None:
        """Say whether JOBS turns them off."""
        return "JOBS=off" if settings.jobs == "off" else None

    def keeps(self, settings: "JobsSettings") -> "Sequence[Path]":
        """Return the folder of the Valkey that the service starts where there is no REDIS_URL."""
        return () if settings.redis_url is not None else (settings.data_dir / "valkey",)

    def routers(self, tasks: Sequence[Task]) -> "Sequence[APIRouter]":  # noqa: ARG002
        """Return `/embed-batch` and `/jobs`."""
        from app.features.jobs import events, routes

        return (routes.router, events.router)

    def body_limits(self, settings: "JobsSettings") -> Mapping[str, int]:
        """Let many documents come in one body."""
        return {SUBMIT_PATH: settings.max_documents_bytes}

    def open(
        self, runtime: "Runtime", settings: "JobsSettings"
    ) -> AbstractAsyncContextManager[None]:
        """Take jobs, start a Valkey and a worker where there is no REDIS_URL, send webhooks."""
        from app.features.jobs.opening import open_jobs

        return open_jobs(runtime, settings)

    def open_shared(
        self,
        settings: "JobsSettings",
        *,
        metrics: "Metrics",
        after: Callable[[], Awaitable[object]],
    ) -> AbstractAsyncContextManager[Mapping[str, str]]:
        """Start one Valkey and one worker for all front ends, where there is no REDIS_URL."""
        from app.features.jobs.opening import open_shared

        return open_shared(settings, metrics=metrics, after=after)

    def add_commands(self, cli: "typer.Typer") -> None:
        """Add `app jobs` and `app worker`."""
        from app.features.jobs.commands import add_to

        add_to(cli)

    def findings(self, settings: "JobsSettings") -> "Iterator[Finding]":
        """Say whether jobs have a broker."""
        from app.features.jobs.findings import findings

        return findings(settings)


FEATURE = Jobs()
