"""Opens the prediction log."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.features.prediction_log.metrics import PredictionLogMetrics
from app.features.prediction_log.retention import RetentionPolicy
from app.features.prediction_log.service import LogPolicy, PredictionLog
from app.features.prediction_log.settings import PredictionLogSettings
from app.features.prediction_log.writer import WriterPolicy
from app.runtime.runtime import Runtime

SECONDS_A_DAY = 86_400


@asynccontextmanager
async def open_log(runtime: Runtime, settings: PredictionLogSettings) -> AsyncIterator[None]:
    """Log answers during the block; at its end write the rows that wait."""
    days = settings.prediction_retention_days
    policy = LogPolicy(
        input=settings.prediction_input,
        writer=WriterPolicy(bound=settings.prediction_log_bound),
        retention=RetentionPolicy(
            age_s=days * SECONDS_A_DAY if days else None,
            rows=settings.prediction_retention_rows or None,
        ),
    )
    metrics = PredictionLogMetrics(runtime.metrics.registry)
    log = PredictionLog(runtime.require_database(), policy=policy, metrics=metrics)
    runtime.entries = log
    runtime.provide(log)
    async with log.running():
        yield
