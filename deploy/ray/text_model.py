"""One model for texts as a deployment: each replica has it, with queue, batches and workers."""

import asyncio
import time
from contextlib import AsyncExitStack
from typing import Any

import ray

from app.batching.deadline import Deadline
from app.batching.requests import Outcome
from app.batching.scheduler import BatchScheduler
from app.core.metrics import Metrics
from app.errors import ServiceError, StartupError
from app.main import compose, load_settings
from app.models.catalog import Catalog
from app.runtime.composition import Composition
from app.runtime.opening import open_runtime
from app.sharing.facts import Facts
from app.sharing.failures import write_failure
from app.sharing.items import unpack_items
from app.sharing.opening import shared_part
from app.sharing.rows import pack_rows

Failure = dict[str, Any]


class TextModel:
    """A replica. Ray calls its methods on one event loop, many at once.

    Args:
        name: of the model in the catalogue.

    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._opening: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    async def _opened(self) -> BatchScheduler[Any]:
        """Load the model with the first call; Ray sends no others until that has answered."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        await asyncio.shield(self._opening)
        return self._scheduler

    async def _open(self) -> None:
        began_s = time.monotonic()
        settings = load_settings()
        cores = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
        settings = settings.model_copy(update={"engine_threads": cores, "inference_threads": cores})
        chosen, catalog = compose(settings)
        failed: asyncio.Future[StartupError] = asyncio.get_running_loop().create_future()
        specs = [s for s in shared_part(catalog, chosen.engines()).specs if s.name == self._name]
        runtime = await self._stack.enter_async_context(
            open_runtime(
                settings,
                Catalog(specs, folder=catalog.folder),
                Composition(tasks=chosen.tasks, features=(), left_out={}),
                metrics=Metrics(),
                on_fatal=failed.set_result,
            )
        )
        loaded = asyncio.ensure_future(runtime.loaded.wait())
        await asyncio.wait((loaded, failed), return_when=asyncio.FIRST_COMPLETED)
        (entry,) = runtime.registry.entries
        if failed.done() or entry.served is None:
            raise StartupError(f"{self._name}: {entry.detail or entry.reason}")
        self._scheduler: BatchScheduler[Any] = entry.served.model
        self._version = entry.served.version
        self._load_s = time.monotonic() - began_s

    async def check_health(self) -> None:
        """Have Ray replace a replica that can't load its model, or hangs."""
        scheduler = await self._opened()
        if problems := scheduler.problems(max_call_s=load_settings().health_max_call_s):
            raise RuntimeError("; ".join(problems))

    async def facts(self, index: int) -> bytes:
        """Return what the service has to know of the model, once it is loaded."""
        scheduler = await self._opened()
        return await asyncio.to_thread(
            lambda: Facts.of(
                scheduler.engine,
                name=self._name,
                index=index,
                version=self._version,
                load_s=self._load_s,
            ).pack()
        )

    async def run(
        self, tokens: bytes, count: int, left_s: float
    ) -> tuple[bytes, None] | tuple[None, Failure]:
        """Run texts; return their rows, or the error of all of them.

        Args:
            tokens: of the texts, as the link has them.
            count: how many texts.
            left_s: until their deadline.

        """
        scheduler = await self._opened()
        waiter: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        try:
            request = scheduler.submit_prepared(
                unpack_items(bytearray(tokens), count),
                deadline=Deadline(at_s=time.monotonic() + left_s),
                waiter=waiter,
            )
        except ServiceError as failure:
            return None, write_failure(failure)
        try:
            outcome = await waiter
        except asyncio.CancelledError:
            scheduler.leave(request, is_client_gone=True)
            raise
        scheduler.note_answered(request)
        return pack_rows(outcome.rows), None
