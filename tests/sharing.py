"""A front end and the engine's process, both in the test's process, over a real Unix socket."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from httpx2 import AsyncClient
from serving import make_app, make_settings, running

from app.runtime.runtime import Runtime
from app.server.engine_process import open_host
from app.server.nameless import nameless

LATE_S = 30.0


@dataclass
class Pair:
    """Both of them: the client's front end, and the runtime of the engine's process."""

    client: AsyncClient
    app: FastAPI
    host: Runtime

    @property
    def front(self) -> Runtime:
        runtime: Runtime = self.app.state.runtime
        return runtime


@asynccontextmanager
async def sharing(tmp_path: Path, models: str, **settings: Any) -> AsyncIterator[Pair]:
    """Run both; the front end once it has its models."""
    read = make_settings(tmp_path, models, **settings)
    with nameless() as (listener, address):
        at = f"/proc/self/fd/{address}"
        now_s = time.monotonic()
        async with open_host(read, listener, on_fatal=print, began_s=now_s) as host:
            app = make_app(tmp_path, models, engine_at=at, **settings)
            async with running(app) as client:
                yield Pair(client, app, host)


async def until(claim: Callable[[], bool]) -> None:
    """Wait for what another task, or a thread, is about to do."""
    async with asyncio.timeout(LATE_S):
        while not claim():
            await asyncio.sleep(0.001)


def counted(runtime: Runtime, name: str, **labels: str) -> float:
    """Return one of a process's metrics, 0 where there is none."""
    found = runtime.metrics.registry.get_sample_value(f"mlapi_{name}", labels)
    return found or 0.0
