"""Opens what keeps responses: Redis where there is one, else this process's memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.features.openai.metrics import OpenAiMetrics
from app.features.openai.settings import OpenAiSettings
from app.runtime.runtime import Runtime
from app.services.kept_in_redis import open_in_redis
from app.services.kept_responses import KeepingBounds, ResponseKeeper, ResponsesInMemory

MB = 2**20


@asynccontextmanager
async def open_openai(runtime: Runtime, settings: OpenAiSettings) -> AsyncIterator[None]:
    """Keep responses during the block."""
    metrics = OpenAiMetrics(runtime.metrics.registry)
    bounds = KeepingBounds(
        count=settings.responses_kept,
        seconds=settings.responses_kept_s,
        bytes_in_memory=settings.responses_memory_mb * MB,
    )

    def on_dropped(reason: str) -> None:
        metrics.responses_dropped.labels(reason).inc()

    if settings.redis_url is None:
        runtime.provide(ResponseKeeper(ResponsesInMemory(bounds, on_dropped=on_dropped)))
        yield
        return
    url = settings.redis_url.get_secret_value()
    async with open_in_redis(url, bounds, on_dropped=on_dropped) as kept:
        runtime.provide(ResponseKeeper(kept))
        yield
