"""One service for each SQLite file and each Valkey: a second one on them is refused."""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from app.db.engine import parse_url
from app.errors import StartupError
from app.runtime.composition import Composition
from app.settings import Settings

log = logging.getLogger(__name__)

# For the one that has just taken the lock to write who it is.
NAMED_WITHIN_S = 1.0
POLL_S = 0.02


def kept_files(chosen: Composition, settings: Settings) -> list[Path]:
    """Return what only one service may have: files and folders of SQLite and Valkey.

    None with PostgreSQL and Redis: then several services may share a DATA_DIR.
    """
    kept = []
    if chosen.is_stored:
        url = parse_url(settings.sql_url)
        kept += [Path(str(url.database))] if url.drivername == "sqlite" else []
    for feature in chosen.features:
        kept += feature.keeps(settings)
    return [path.absolute() for path in kept]


@contextmanager
def sole(paths: Iterable[Path]) -> Iterator[None]:
    """Hold what only one service may have; commands, workers and front ends don't ask.

    Beside each lies a file `NAME.lock` with the process's id and host. The lock is the kernel's, on
    that open file, so it ends with the process, however that ends; the file stays.

    Raises:
        StartupError: another service has one of them.

    """
    descriptors: list[int] = []
    try:
        for path in paths:
            descriptor = _lock(path)
            if descriptor is not None:
                descriptors.append(descriptor)
        yield
    finally:
        for descriptor in descriptors:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    """Lock the file beside a path; None where that can't be done, which is logged.

    Raises:
        StartupError: another service has it.

    """
    file = path.with_name(f"{path.name}.lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Closed in children that are other programs, so none of them holds it on.
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        # The folder can't be written: what needs it says so.
        log.warning("not_locked", extra={"file": str(file), "error": type(failure).__name__})
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
    except BlockingIOError:
        os.close(descriptor)
        raise StartupError(_refusal(path, _holder(file))) from None
    except OSError as failure:  # a network's file system without locks, or a full disk
        log.warning("not_locked", extra={"file": str(file), "error": type(failure).__name__})
    return descriptor


def _holder(file: Path) -> str:
    """Return who has a lock, as `process 17` or `process 17 on another-host`."""
    until_s = time.monotonic() + NAMED_WITHIN_S
    while True:
        pid, _, host = file.read_text(encoding="utf-8", errors="replace").strip().partition(" ")
        is_here = host == socket.gethostname()
        is_named = pid.isdecimal() and not (is_here and _is_dead(int(pid)))
        if is_named or time.monotonic() > until_s:
            return f"process {pid or 'unknown'}" + ("" if is_here else f" on {host or 'any host'}")
        time.sleep(POLL_S)


def _is_dead(pid: int) -> bool:
    """Say whether there is no such process: it was killed, and its successor writes in a moment."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _refusal(path: Path, holder: str) -> str:
    return (
        f"{path} is another service's ({holder}): end that one, or give this one a DATA_DIR of its"
        " own; with PostgreSQL and Redis (DATABASE_URL, REDIS_URL) services may share one"
    )
