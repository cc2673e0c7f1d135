"""How the process of a model is started, what there is to speak with it, and how it ended.

It is spawned, never forked: torch and threads don't survive a fork. It ends with the service,
however that ends, and gets neither the terminal's signals nor the service's secrets.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from app.engines.python.frames import Channel, SharedMemory, open_memory
from app.engines.python.messages import Start

CHILD: Final = "app.engines.python.child"
FIRST_CHANNELS: Final = 2  # calls, and what must not wait for them; streams have one each
MAX_NOTES_CHARS: Final = 2_000


class End(StrEnum):
    """Why a process ended; a metric's label."""

    CRASHED = "crashed"
    HUNG = "hung"
    NOT_LOADED = "not_loaded"


@dataclass(slots=True, eq=False)
class Spawned:
    """A process, and what there is to speak with it."""

    process: subprocess.Popen[bytes]
    calls: Channel
    others: Channel
    memory: SharedMemory | None
    streams: deque[Channel]  # those that are free
    notes: int  # where it says what it did when it crashed
    is_closed: bool = False
    is_up: bool = False  # it has loaded the class, and answers as far as is known
    end: End = End.CRASHED
    # Held by who speaks with it: what a thread still uses isn't given back, and so to others.
    call_lock: threading.Lock = field(default_factory=threading.Lock)
    side_lock: threading.Lock = field(default_factory=threading.Lock)

    def kill(self) -> None:
        """End it and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Give back what it took; it has ended, so that nobody speaks with it for long."""
        with self.call_lock, self.side_lock:
            self.calls.close()
            self.others.close()
            self.is_closed = True
            self._close_streams()
            if self.memory is not None:
                self.memory.close()
            os.close(self.notes)

    def give_back(self, channel: Channel) -> None:
        """Take the channel of a stream that is over."""
        self.streams.append(channel)
        if self.is_closed:
            self._close_streams()

    def _close_streams(self) -> None:
        with suppress(IndexError):
            while True:
                self.streams.popleft().close()


def spawn(start: Start, name: str) -> Spawned:
    """Start it; it waits for its first message."""
    with ExitStack() as opened:
        pairs = [socket.socketpair() for _ in range(FIRST_CHANNELS + start.options.streams)]
        for own, _ in pairs:
            opened.callback(own.close)
        memory = open_memory(f"model {name}")
        if memory is not None:
            opened.callback(memory.close)
        notes = os.memfd_create(name) if memory else os.open(os.devnull, os.O_RDWR)
        opened.callback(os.close, notes)
        shared = [] if memory is None else [memory.incoming, memory.outgoing]
        try:
            descriptors = [notes, *shared, *(of_child.fileno() for _, of_child in pairs)]
            process = _popen(start, descriptors, has_memory=memory is not None)
        finally:
            for _, of_child in pairs:
                of_child.close()
        opened.pop_all()  # they are closed with the process
    calls, others, *streams = [own for own, _ in pairs]
    return Spawned(
        process=process,
        calls=Channel(calls, memory),
        others=Channel(others, None),
        streams=deque(Channel(stream, None) for stream in streams),
        memory=memory,
        notes=notes,
    )


def _popen(
    start: Start, descriptors: Sequence[int], *, has_memory: bool
) -> subprocess.Popen[bytes]:
    program = f"import sys; sys.path[:] = {sys.path!r}; from {CHILD} import main; main()"
    arguments = map(str, (os.getpid(), int(has_memory), *descriptors))
    return subprocess.Popen(  # noqa: S603  # our own module
        [sys.executable, "-P", "-c", program, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # the service's own output isn't the class's
        pass_fds=descriptors,
        env=_environment(start.options.hidden),
        start_new_session=True,  # so that Ctrl-C is the service's alone
    )


def _environment(hidden: Container[str]) -> Mapping[str, str]:
    """Return the service's environment without its secrets."""
    return {name: value for name, value in os.environ.items() if name.upper() not in hidden}


def how_it_ended(status: int | None) -> str:
    """Return an exit status in words."""
    if status is None or status >= 0:
        return f"exit status {status}"
    try:
        return signal.Signals(-status).name
    except ValueError:  # one of the real-time signals
        return f"signal {-status}"


def read_notes(notes: int) -> str:
    """Return what a process noted as it crashed: places in its code, and no values."""
    with suppress(OSError):
        return os.pread(notes, MAX_NOTES_CHARS, 0).decode(errors="replace").strip()
    return ""


def first_place(notes: str) -> str:
    """Return the line of the code in which it crashed.

    The notes have each thread, in the order of their beginning; the one that crashed is the
    current one.
    """
    _, current, rest = notes.partition("Current thread")
    for line in (rest if current else notes).splitlines():
        if line.lstrip().startswith("File "):
            return f" at {line.strip()}"
    return ""
