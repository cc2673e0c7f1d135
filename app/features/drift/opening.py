"""Opens the counting of answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.features.drift.metrics import DriftMetrics
from app.features.drift.settings import DriftSettings
from app.features.drift.watch import DriftWatch
from app.features.drift.windows import Sizes
from app.runtime.runtime import Runtime


@asynccontextmanager
async def open_drift(runtime: Runtime, settings: DriftSettings) -> AsyncIterator[None]:
    """Count answers during the block."""
    watch = DriftWatch(
        runtime.entries,
        runtime.database,
        sizes=Sizes(reference=settings.drift_reference_rows, window=settings.drift_window_rows),
        metrics=DriftMetrics(runtime.metrics.registry),
    )
    runtime.entries = watch
    runtime.provide(watch)
    async with watch.running():
        yield
