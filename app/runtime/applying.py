"""Reads the catalogue anew while its models serve: at SIGHUP, or where an admin asks for it."""

import asyncio
import logging
from collections.abc import Collection
from pathlib import Path

from app.errors import (
    CatalogError,
    CatalogRefusedError,
    NotReadyError,
    ServiceError,
    SwapRefusedError,
)
from app.models.applying import Applied
from app.models.catalog import read_catalog
from app.runtime.runtime import Runtime

log = logging.getLogger(__name__)

OF_SEVERAL = (
    "Models can't be changed with FRONT_ENDS above 1: each process has its own. Change the"
    " catalogue, and restart."
)


class CatalogFile:
    """The file that the models come from.

    Args:
        path: of the file.
        tasks: that are installed; models of others are left out.
        runtime: has the models.

    """

    def __init__(self, path: Path, *, tasks: Collection[str], runtime: Runtime) -> None:
        self._path = path
        self._tasks = tuple(tasks)
        self._runtime = runtime

    async def apply(self, *, wait_s: float | None = None) -> list[Applied] | None:
        """Read it, and take over what has changed; what can't be loaded stays as it was.

        It goes on when the caller leaves, or `wait_s` has passed; then None is returned.

        Raises:
            NotReadyError: the service starts or ends.
            SwapRefusedError: this process is one of several front ends.
            SwapInProgressError: a model is being changed.
            CatalogRefusedError: it can't be read, or needs a restart; nothing has changed.

        """
        check_changeable(self._runtime)
        try:
            catalog = await asyncio.to_thread(read_catalog, self._path)
            catalog.check_tasks(self._tasks)
            task = self._runtime.swaps.apply(catalog.of_tasks(self._tasks))
            done, _ = await asyncio.wait({task}, timeout=wait_s)
            return task.result() if done else None
        except CatalogError as failure:
            raise CatalogRefusedError(failure.line) from None

    async def apply_and_log(self) -> None:
        """Do the same where nobody waits for an answer."""
        try:
            applied = await self.apply() or []
        except ServiceError as failure:
            log.error("catalogue_refused", extra={"reason": failure.detail})  # noqa: TRY400  # ours
            return
        failed = [one.model for one in applied if one.outcome == "failed"]
        log.info("catalogue_applied", extra={"changed": len(applied), "failed": failed})


def check_changeable(runtime: Runtime, *, is_followed: bool = False) -> None:
    """Refuse to change models where, or while, that can't be done.

    Args:
        runtime: has the models.
        is_followed: whether other front ends would do the same.

    Raises:
        NotReadyError: the service starts or ends.
        SwapRefusedError: this process is one of several front ends.

    """
    if runtime.is_draining:
        raise NotReadyError("The service is shutting down.", retry_after_s=1)
    if not runtime.loaded.is_set():
        raise NotReadyError("The models are still being loaded.", retry_after_s=2)
    if runtime.all_metrics is not None and not is_followed:
        raise SwapRefusedError(OF_SEVERAL)
