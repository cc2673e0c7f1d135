"""A contestant's processes: start, memory of the whole tree, and an end that leaves nothing."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CORES = 2  # that each contestant may use, as in the design's figures
TERM_WAIT_S = 15.0
POLL_S = 0.05
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Member:
    """One process of a tree; the start time tells it from a later one with the same number."""

    pid: int
    started: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A contestant that was started."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    started_s: float

    @property
    def last_words(self) -> str:
        """What it wrote last, in one line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent ends, so that none gets lost (Linux)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [s.getsockname()[1] for s in sockets]


@contextlib.contextmanager
def pinned() -> Iterator[None]:
    """Give what is started here the first cores; a child inherits them."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(own)[:CORES])
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def start(
    command: Sequence[str], *, port: int, env: Mapping[str, str], folder: Path, log: Path
) -> Running:
    """Start a contestant as a process group of its own."""
    with log.open("wb") as said, pinned():
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(process=process, port=port, log=log, started_s=time.monotonic())


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, or nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def tree(root: int) -> list[Member]:
    """Return a process and all that descend from it."""
    parents: dict[int, list[Member]] = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(int(entry.name)) if entry.name.isdecimal() else []
        if fields:
            member = Member(int(entry.name), fields[19])
            parents.setdefault(int(fields[1]), []).append(member)
    fields = _stat(root)
    found = [Member(root, fields[19])] if fields else []
    for member in found:  # grows while it is walked
        found += parents.get(member.pid, [])
    return found


def memory_mb(root: int) -> float:
    """Return the proportional set size of a whole tree: what is shared counts once."""
    kib = 0
    for member in tree(root):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{member.pid}/smaps_rollup").read_text(encoding="utf-8")
            kib += sum(
                int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
            )
    return kib / 1024


def others_cpu_s() -> float:
    """Return the CPU seconds since boot that went to others than this process and its descendants.

    What the hypervisor took is among them; interrupts aren't, because ours look like theirs.
    """
    fields = Path("/proc/stat").read_text(encoding="utf-8").split(maxsplit=9)
    user, nice, system, steal = (int(fields[index]) for index in (1, 2, 3, 8))
    # A process's own two times and those of its children that have ended.
    own = sum(sum(map(int, _stat(member.pid)[11:15])) for member in tree(os.getpid()))
    return (user + nice + system + steal - own) / os.sysconf("SC_CLK_TCK")


def _is_alive(member: Member) -> bool:
    fields = _stat(member.pid)
    return bool(fields) and fields[19] == member.started and fields[0] != "Z"


def _reap(members: Sequence[Member]) -> None:
    """Take the exit status of adopted children, so that no zombies stay."""
    for member in members:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(member.pid, os.WNOHANG)


def stop(running: Running) -> None:
    """End a contestant and all that it started: politely, then for certain."""
    members = tree(running.process.pid)
    with contextlib.suppress(ProcessLookupError):
        running.process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        running.process.wait(TERM_WAIT_S)
    # Some parents end before their children; those get a moment too.
    deadline = time.monotonic() + 1.0
    while any(map(_is_alive, members)) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    for member in members:
        if _is_alive(member):
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, signal.SIGKILL)
    running.process.wait(TERM_WAIT_S)
    _reap([member for member in members if member.pid != running.process.pid])
