"""Writes log lines in a thread, many with one call, so that logging never waits for its reader."""

import os
import select
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import TextIO

Write = Callable[[bytes], object]

# How long the thread lets lines gather after it has written some. The first after a pause is
# written at once; under load the thread is woken ten times a second and not for each line.
GATHER_S = 0.1
BATCH = 1_000  # lines taken at once, beside those that `bound` counts
# How long a flush waits for a reader that reads slowly or not at all.
FLUSH_S = 1.0
WRITABLE_POLL_MS = 1_000
STANDARD_ERROR = 2


class LineWriter:
    """Takes lines without waiting; what is too much is dropped and counted.

    `put` and `flush` may be called in any thread, and in a signal handler: they hold no lock that
    the interrupted code may hold. In a process made by `fork` another thread is started, and lines
    that waited then are left to the parent.

    Args:
        stream: where lines are written; None: nowhere, and all count as dropped.
        bound: lines that may wait.
        report: makes a line that says how many were dropped.

    """

    def __init__(self, stream: TextIO | None, *, bound: int, report: Callable[[int], str]) -> None:
        self._write = _writing(stream)
        self._bound = bound
        self._report = report
        self._full = 0
        self._failed = 0
        self._reported = 0
        self._is_closed = False
        self._start()
        os.register_at_fork(after_in_child=partial(_call, weakref.WeakMethod(self.start_again)))

    @property
    def dropped(self) -> int:
        """Lines that were lost so far: too many waited, or writing failed."""
        return self._full + self._failed

    def put(self, line: str) -> None:
        """Have a line written soon, after those before it."""
        if self._is_closed or self._waiting.qsize() >= self._bound:
            with self._counting:
                self._full += 1
        else:
            self._waiting.put(line)

    def flush(self, *, timeout_s: float = FLUSH_S) -> bool:
        """Wait until what was put before is written; return whether it was in time."""
        if self._is_closed or not self._thread.is_alive():
            return False
        written = threading.Lock()
        written.acquire()
        self._waiting.put(_Mark(written))
        self._hurry()
        return written.acquire(timeout=timeout_s)

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self.flush()
        self._is_closed = True
        self._waiting.put(_Mark(None))
        self._hurry()

    def start_again(self) -> None:
        """Start in a forked process, which has none of the threads."""
        if not self._is_closed:
            self._start()

    def _start(self) -> None:
        # Its `put` may interrupt itself; that of a queue with a Python lock would wait for ever.
        self._waiting: SimpleQueue[str | _Mark] = SimpleQueue()
        self._pause = threading.Lock()
        self._pause.acquire()
        self._counting = threading.RLock()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def _hurry(self) -> None:
        with suppress(RuntimeError):  # it is told already
            self._pause.release()

    def _run(self) -> None:
        while self._write_some():
            self._pause.acquire(timeout=GATHER_S)

    def _write_some(self) -> bool:
        """Wait for a line, write it and what waits behind it; return False at the end."""
        first = self._waiting.get()
        count = min(self._waiting.qsize(), BATCH)
        lines: list[str] = []
        for item in (first, *(self._waiting.get_nowait() for _ in range(count))):
            if isinstance(item, str):
                lines.append(item)
                continue
            self._write_all(lines)
            lines = []
            if item.written is None:
                return False
            item.written.release()
        self._write_all(lines)
        self._report_dropped()
        if count == BATCH:
            self._hurry()
        return True

    def _report_dropped(self) -> None:
        if (dropped := self.dropped) > self._reported:
            with suppress(OSError):  # it is reported when writing works again
                self._write(_encode([self._report(dropped - self._reported)]))
                self._reported = dropped

    def _write_all(self, lines: Iterable[str]) -> None:
        for count, chunk in _chunks(lines):
            try:
                self._write(chunk)
            except Exception:  # noqa: BLE001  # the disk is full, the reader is gone: go on
                self._failed += count


class _Mark:
    """Stands between lines: releases a lock when those before it are written, or ends the log."""

    __slots__ = ("written",)

    def __init__(self, written: "threading.Lock | None") -> None:
        self.written = written


def _call(method: "weakref.WeakMethod[Callable[[], None]]") -> None:
    if (found := method()) is not None:
        found()


def _chunks(lines: Iterable[str]) -> Iterator[tuple[int, bytes]]:
    """Join lines, and say how many; lines of processes that share a pipe aren't mixed up to 4 KB.

    POSIX's write: up to PIPE_BUF bytes are written to a pipe as a whole.
    """
    chunk: list[str] = []
    size = 0
    for line in lines:
        if chunk and size + len(line) >= select.PIPE_BUF:
            yield len(chunk), _encode(chunk)
            chunk, size = [], 0
        chunk.append(line)
        size += len(line) + 1
    if chunk:
        yield len(chunk), _encode(chunk)


def _encode(lines: list[str]) -> bytes:
    lines.append("")
    return "\n".join(lines).encode("utf-8", "backslashreplace")


def _writing(stream: TextIO | None) -> Write:
    """Return what writes to a stream: past its buffer, whose lock an ending process waits for."""
    if stream is None:
        return _write_nowhere
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # it is in memory, or closed
        return partial(_write_text, stream)
    if descriptor > STANDARD_ERROR:
        descriptor = os.dup(descriptor)  # its own may be closed, and the number another file's
    return partial(_write_to, descriptor)


def _write_nowhere(_data: bytes) -> None:
    """Fail.

    Raises:
        OSError: always.

    """
    raise OSError("standard error is closed")


def _write_to(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(descriptor, left) :]
        except BlockingIOError:  # another process that shares it has set it to
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll(WRITABLE_POLL_MS)


def _write_text(stream: TextIO, data: bytes) -> None:
    stream.write(data.decode())
    stream.flush()
