"""Looks at the machine: Python, memory, disk, port, open files."""

import os
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from app.core.finding import Finding, bad, doubtful, good
from app.server.descriptors import limit, needed_descriptors
from app.settings import Settings

GIB = 2**30
OLDEST_PYTHON = (3, 11)
# The service with the default models takes about 900 MiB, its worker 350 more.
WANTED_MEMORY = int(1.5 * GIB)
# The converted models take 100 MiB, a log of a million answers 600.
WANTED_DISK = GIB
PROBE_S = 1.0
# A proxy of the environment would be asked for its own port of this number.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# Where a container's bound of memory is, in the two versions of control groups.
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def look(settings: Settings) -> Iterator[Finding]:
    """Look at all of it."""
    yield _python()
    yield _memory(_memory_bytes())
    yield from _disk(settings.data_dir.absolute())
    yield _port(settings.host, settings.port)
    yield _descriptors(limit(), needed_descriptors(settings))
    if settings.front_ends > 1:
        yield _front_ends(settings.front_ends, settings.core_count)


def _python() -> Finding:
    summary = f"{'.'.join(map(str, sys.version_info[:3]))} on {sys.platform}"
    if sys.version_info < OLDEST_PYTHON:
        return bad("python", summary, "Install Python 3.11 or newer.")
    return good("python", summary)


def _memory_bytes() -> int:
    """Return the memory that this process may use."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in MEMORY_LIMITS:
        try:
            content = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if content.isdecimal():
            sizes.append(int(content))
    return min(sizes)


def _memory(size: int) -> Finding:
    summary = f"{size / GIB:.1f} GiB"
    if size < WANTED_MEMORY:
        return doubtful(
            "memory", summary, "The default models want 1.5 GiB; leave some out of models.toml."
        )
    return good("memory", summary)


def _disk(folder: Path) -> Iterator[Finding]:
    """See that the data folder, or what will hold it, can be written and has room."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as failure:
        advice = "Set DATA_DIR to a folder that this user can write."
        yield bad("disk", f"{there} can't be written: {failure.strerror}", advice)
        return
    free = shutil.disk_usage(there).free
    summary = f"{free / GIB:.1f} GiB free in {folder}"
    if free < WANTED_DISK:
        yield doubtful("disk", summary, "Make room, or set DATA_DIR to a larger disk.")
    else:
        yield good("disk", summary)


def _port(host: str, port: int) -> Finding:
    """See that the service can listen where it is to."""
    place = f"{host}:{port}"
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as failure:
        if port and _answers(host, port):
            return good("port", f"{place} is in use, by a service that answers /health")
        summary = f"{place}: {failure.strerror or failure}"
        return bad("port", summary, "End what listens there, or set HOST and PORT.")
    return good("port", f"{place} is free")


def _front_ends(count: int, cores: int) -> Finding:
    """Check that several front ends can run here, and that each has a core."""
    summary = f"{count} on {cores} cores"
    if sys.platform != "linux":
        return bad("front ends", summary, "More than one needs Linux: set FRONT_ENDS=1.")
    if count > cores:
        advice = "Each has every model in memory and less than a core; set FRONT_ENDS lower."
        return doubtful("front ends", summary, advice)
    return good("front ends", summary)


def _descriptors(available: int, needed: int) -> Finding:
    """Check that connections don't have to wait for others to end."""
    summary = f"{available} at once"
    if available < needed:
        advice = f"Give the process {needed} or more: `ulimit -n`, LimitNOFILE, or --ulimit nofile."
        return doubtful("open files", summary, advice)
    return good("open files", summary)


def _answers(host: str, port: int) -> bool:
    url_host = f"[{host}]" if ":" in host else host
    try:
        with DIRECT.open(f"http://{url_host}:{port}/health", timeout=PROBE_S) as answer:
            return bool(answer.status == 200)  # noqa: PLR2004  # HTTP's
    except (OSError, ValueError, HTTPException):  # the last: something else than HTTP listens
        return False
