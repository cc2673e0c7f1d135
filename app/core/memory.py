"""How much memory is free: the machine's, within the container's bound; and giving some back."""

import ctypes
from contextlib import suppress
from pathlib import Path

MEMORY = Path("/proc/meminfo")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
# The bound, what is used of it, and what of that is a cache of files that can go, by version.
GROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)
KIB = 1024


def free_bytes(memory: Path = MEMORY, groups: Path = CONTROL_GROUPS) -> int | None:
    """Return how much could be taken now; None where the system doesn't say.

    Args:
        memory: the system's file about memory.
        groups: where the control groups are mounted.

    """
    available = _field(memory, "MemAvailable:")
    sizes = [] if available is None else [available * KIB]
    for limit, used, statistics, cache in GROUP_FILES:
        bound, current = _number(groups / limit), _number(groups / used)
        if bound is not None and current is not None:
            sizes.append(bound - current + (_field(groups / statistics, cache) or 0))
    return max(0, min(sizes)) if sizes else None


def give_back_freed() -> None:
    """Give the system the memory that was freed and that the C library keeps; blocks for a moment.

    It keeps what fragments of a model that is loaded or closed lie between: a tenth of a small
    service after thirty swaps. Does nothing where the C library isn't GNU's.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _number(file: Path) -> int | None:
    """Return the number that is all of a file; None where it holds another word, as "max"."""
    content = _read(file).strip()
    return int(content) if content.isdecimal() else None


def _field(file: Path, name: str) -> int | None:
    """Return the number behind a name, in a file with a pair on each line."""
    for line in _read(file).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
