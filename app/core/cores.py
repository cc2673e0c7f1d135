"""How many processor cores this process may really use: affinity and the container's quota."""

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
# Version 1 mounts the controller under either name, by distribution.
CPU_CONTROLLERS = ("cpu,cpuacct", "cpu")


def core_count(groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> int:
    """Return how many cores may be used, at least 1.

    A quota of one and a half cores counts as 2: with one thread half a core would lie idle.

    Args:
        groups: where the control groups are mounted.
        own: the file that says which groups this process is in.

    """
    return max(1, math.ceil(min(affinity_count(), quota_cores(groups, own))))


def affinity_count() -> int:
    """Return how many processors the scheduler may put this process on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota_cores(groups: Path, own: Path) -> float:
    """Return the least quota of the process's control groups, in cores; infinity without one."""
    quotas = [_read_quota(folder) for folder in _folders(groups, own)]
    return min(quotas, default=math.inf)


def _folders(groups: Path, own: Path) -> Iterator[Path]:
    """Yield each folder that may hold a quota: the process's own groups and those above.

    In a container the file often names the host's path, while the mount shows the container's
    group as its root; so the root is always among them.
    """
    # Each line is one hierarchy: number, controllers (none in version 2), path.
    for line in _read(own).splitlines() or ["0::/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [groups / name for name in CPU_CONTROLLERS] if controllers else [groups]
        inside = PurePosixPath(path).relative_to("/")
        for mount in mounts:
            yield from (mount / folder for folder in (inside, *inside.parents))


def _read_quota(folder: Path) -> float:
    """Read version 2's `cpu.max`, or else version 1's pair of files; both in microseconds."""
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not period:
        quota = _read(folder / "cpu.cfs_quota_us")
        period = _read(folder / "cpu.cfs_period_us")
    try:
        allowed = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # no such file, or "max"
        return math.inf
    return allowed if allowed > 0 else math.inf  # version 1 says -1 for "no quota"


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
