"""In development: loads Python classes anew when their files change."""

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path

from app.engines.python.finding import file_of
from app.errors import StartupError
from app.models.catalog import PYTHON, Catalog
from app.runtime.runtime import Runtime

log = logging.getLogger(__name__)

EVERY_S = 0.3
Stamp = tuple[int, int] | None


def watched_files(catalog: Catalog) -> dict[str, Path]:
    """Return the file of each Python class, by the model's name."""
    files = {
        spec.name: file_of((catalog.to_load(spec.name) or spec).source or "", base=catalog.folder)
        for spec in catalog.specs
        if spec.engine == PYTHON
    }
    return {name: path for name, path in files.items() if path is not None}


async def reload_models(runtime: Runtime, catalog: Catalog, *, every_s: float = EVERY_S) -> None:
    """Load the models anew whose files have changed, and not while they are being written."""
    files = watched_files(catalog)
    loaded = _stamps(files.values())
    await runtime.loaded.wait()
    before = loaded
    while True:
        await asyncio.sleep(every_s)
        now = _stamps(files.values())
        for name, path in files.items():
            if now[path] == before[path] != loaded[path] and now[path] is not None:
                loaded[path] = now[path]
                await _reload(runtime, name)
        before = now


async def _reload(runtime: Runtime, name: str) -> None:
    """Load one; what its code raises the log has, with its traceback, from where it is loaded."""
    log.info("model_reloading", extra={"model": name})
    try:
        await runtime.registry.reload(name)
    except StartupError as failure:
        fields = {"model": name, "reason": failure.line}
        log.error("model_reload_failed", extra=fields)  # noqa: TRY400  # as above


def _stamps(paths: Iterable[Path]) -> dict[Path, Stamp]:
    """Return what changes with each file; None while there is none."""
    stamps: dict[Path, Stamp] = {}
    for path in paths:
        try:
            found = path.stat()
        except OSError:
            stamps[path] = None
        else:
            stamps[path] = (found.st_mtime_ns, found.st_size)
    return stamps
