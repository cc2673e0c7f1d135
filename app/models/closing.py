"""Closes models that are lent no more, once what they have on loan is back."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from app.core.memory import give_back_freed
from app.models.entries import Loans, Servable, Served

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replaced:
    """What is lent no more, and is closed once what it has on loan is back."""

    name: str
    served: Served
    loans: Loans


class Retired:
    """Models that are lent no more, and still serve the requests that they have."""

    def __init__(self) -> None:
        self._kept: list[Replaced] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def close(self, replaced: Replaced, *, timeout_s: float) -> None:
        """Close a model once its leases have ended; what it still runs then gets an error."""
        self._kept.append(replaced)  # `close_all` has those whose time the shutdown cuts
        try:
            await close_unused(replaced, time.monotonic() + timeout_s)
        except Exception:
            self._kept.remove(replaced)  # once is enough
            raise
        self._kept.remove(replaced)

    def close_soon(self, replaced: Replaced, *, timeout_s: float) -> asyncio.Task[None]:
        """Begin to close a model likewise; the task doesn't raise."""
        task = asyncio.create_task(self._close_alone(replaced, timeout_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _close_alone(self, replaced: Replaced, timeout_s: float) -> None:
        try:
            await self.close(replaced, timeout_s=timeout_s)
        except Exception:
            log.exception("unload_failed", extra={"model": replaced.name})

    async def close_all(self, until_s: float) -> None:
        """Close all that are left, also those whose leases haven't ended by then."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, until_s - time.monotonic()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(close_unused(one, until_s) for one in self._kept))


async def close_unused(replaced: Replaced, until_s: float) -> None:
    """Close a model that nobody can lease any more, once its leases have ended or the time is up.

    One that can't be closed while it is leased stays then.
    """
    loans, model = replaced.loans, replaced.served.model
    try:
        async with asyncio.timeout(max(0.0, until_s - time.monotonic())):
            while loans.count:
                await loans.idle.wait()
    except TimeoutError:
        fields = {"model": replaced.name, "leases": loans.count}
        log.warning("model_still_leased", extra=fields)
        if not model.can_close_early:
            return
    left_s = max(0.0, until_s - time.monotonic())
    close = partial(_close, model, left_s)
    # A thread of its own: those that load may still wait for a hub.
    thread = ThreadPoolExecutor(1, thread_name_prefix="model-close")
    try:
        await asyncio.get_running_loop().run_in_executor(thread, close)
    finally:
        thread.shutdown(wait=False)


def _close(model: Servable, timeout_s: float) -> None:
    model.close(timeout_s=timeout_s)
    give_back_freed()
