"""The thread that writes log lines: what it keeps, what it drops, and that it blocks nothing."""

import fcntl
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest

from app.core.log_writer import LineWriter

pytestmark = pytest.mark.core

TIMEOUT_S = 20
BEGIN = """
import logging, os, signal, sys, threading
from app.core.logs import configure
from app.console.ending import leave
configure(log_format="json", level="info", log_inputs=False)
log = logging.getLogger("x")
def lines(count):
    for number in range(count):
        log.info("line", extra={"number": number})
"""


@contextmanager
def writing(stream: TextIO | None, *, bound: int = 10_000) -> Iterator[LineWriter]:
    writer = LineWriter(stream, bound=bound, report=lambda count: f"lost {count}")
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def piped() -> Iterator[tuple[int, TextIO]]:
    """Give a pipe: the end to read, as a descriptor, and the end to write."""
    read_end, write_end = os.pipe()
    try:
        with os.fdopen(write_end, "w") as stream:
            yield read_end, stream
    finally:
        os.close(read_end)


def read_until(descriptor: int, is_whole: Callable[[bytes], bool]) -> bytes:
    """Read until the text is whole; closes nothing."""
    text = b""
    until_s = time.monotonic() + TIMEOUT_S
    while not is_whole(text) and time.monotonic() < until_s:
        text += os.read(descriptor, 65_536)
    return text


def lines_and_lost(text: bytes) -> tuple[int, int]:
    """Count the lines that were written, and those that are told to be lost."""
    return text.count(b"x\n"), sum(map(int, re.findall(rb"^lost (\d+)\n", text, re.MULTILINE)))


def run(script: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BEGIN + script],
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S * 2,
        check=False,
        **options,
    )


def numbers(ended: subprocess.CompletedProcess[str]) -> list[int]:
    """Return the numbers of the lines, in their order; other output is left out."""
    found = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    return [line["number"] for line in found if line["event"] == "line"]


def test_lines_are_written_in_their_order_and_none_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "log"
    with file.open("w") as stream, writing(stream) as writer:
        for number in range(3_000):
            writer.put(str(number))
        assert writer.flush()
        assert file.read_text().split() == [str(number) for number in range(3_000)]


def test_each_thread_s_lines_keep_their_order() -> None:
    stream = io.StringIO()
    with writing(stream) as writer:

        def put_all(number: int) -> None:
            for i in range(500):
                writer.put(f"{number} {i}")

        threads = [threading.Thread(target=put_all, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    found = [tuple(map(int, line.split())) for line in stream.getvalue().splitlines()]
    assert len(found) == 2_000
    for n in range(4):
        assert [i for of, i in found if of == n] == list(range(500))


def test_a_reader_that_does_not_read_holds_up_neither_logging_nor_the_end() -> None:
    with piped() as (read_end, stream):
        line = "x" * 1_000
        started_s = time.monotonic()
        writer = LineWriter(stream, bound=100, report=lambda count: f"lost {count}")
        for _ in range(1_000):
            writer.put(line)
        assert time.monotonic() - started_s < 5
        assert not writer.flush(timeout_s=0.05)
        before = writer.dropped
        assert before > 0
        # The loss may be told in parts, and before lines that still waited then.
        text = read_until(read_end, lambda read: lines_and_lost(read) == (1_000 - before, before))
        assert lines_and_lost(text) == (1_000 - before, before)
        writer.close()


def test_a_burst_beyond_the_bound_is_dropped_counted_and_told() -> None:
    stream = io.StringIO()
    with writing(stream, bound=500) as writer:
        for number in range(100_000):
            writer.put(f"n {number}")
        writer.flush()
        dropped = writer.dropped
    lines = stream.getvalue().splitlines()
    written = [int(line.split()[1]) for line in lines if line.startswith("n ")]
    assert written == sorted(written)
    assert dropped > 0
    assert len(written) + dropped == 100_000
    assert sum(int(line.split()[1]) for line in lines if line.startswith("lost ")) == dropped


def test_a_closed_standard_error_drops_and_counts() -> None:
    with writing(None) as writer:
        writer.put("x")
        writer.flush()
        assert writer.dropped == 1


def test_a_reader_that_has_gone_drops_and_counts() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as stream, writing(stream) as writer:
        writer.put("x")
        writer.flush()
        assert writer.dropped == 1
        writer.put("y")
        writer.flush()
        assert writer.dropped == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_drops_and_counts() -> None:
    with Path("/dev/full").open("w") as stream, writing(stream) as writer:
        writer.put("x")
        writer.flush()
        assert writer.dropped == 1


def test_a_pipe_that_another_process_made_non_blocking_loses_nothing() -> None:
    with piped() as (read_end, stream):
        descriptor = stream.fileno()
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_NONBLOCK)
        with writing(stream) as writer:
            for _ in range(300):
                writer.put("x" * 1_000)
            writer.put("end")
            text = read_until(read_end, lambda read: read.endswith(b"end\n"))
            assert text.count(b"\n") == 301
            assert writer.dropped == 0


def test_processes_that_share_a_pipe_do_not_mix_their_lines() -> None:
    ended = run("os.fork()\nlines(2000)\nleave(0)")
    found = numbers(ended)
    assert len(found) == 4_000  # each was JSON
    assert sorted(found) == sorted([*range(2_000), *range(2_000)])


def test_a_forked_process_has_a_thread_of_its_own_and_writes_no_line_twice() -> None:
    script = (
        "lines(3)\n"
        "if os.fork() == 0:\n"
        "    log.info('line', extra={'number': 7})\n"
        "    leave(0)\n"
        "os.wait()\n"
        "log.info('line', extra={'number': 8})\n"
    )
    assert sorted(numbers(run(script))) == [0, 1, 2, 7, 8]


@pytest.mark.parametrize(
    "end",
    [
        "",
        "sys.exit(3)",
        "leave(0)",
        "raise RuntimeError",
        "from app.cli.main import leave_unfinished; leave_unfinished()",
        "from app.console.ending import end_process; end_process(0)",
        "thread = threading.Thread(target=lambda: leave(0)); thread.start(); thread.join()",
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()",
        "log.critical('line', extra={'number': 2000}); os._exit(1)",
    ],
)
def test_the_lines_that_wait_are_written_at_the_end(end: str) -> None:
    found = numbers(run(f"lines(2000)\n{end}"))
    assert found[:2_000] == list(range(2_000))
    assert len(found) == 2_000 + ("critical" in end)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_process_with_its_lines_written(number: signal.Signals) -> None:
    script = (
        "from app.cli.main import leave_on_signals\n"
        "leave_on_signals()\n"
        "lines(2000)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "lines(100_000)\n"  # it may come in the middle of a line
    )
    ended = run(script)
    assert ended.returncode == 0
    assert numbers(ended)[:2_000] == list(range(2_000))


@pytest.mark.parametrize("end", ["leave(5)", "from app.cli.main import main; sys.exit(5)"])
def test_a_process_whose_standard_error_nobody_reads_ends_all_the_same(end: str) -> None:
    read_end, write_end = os.pipe()
    child = subprocess.Popen([sys.executable, "-c", f"{BEGIN}lines(5000)\n{end}"], stderr=write_end)
    os.close(write_end)
    try:
        assert child.wait(TIMEOUT_S) == 5
    finally:
        child.kill()
        os.close(read_end)


def test_the_overdue_end_is_not_held_up_by_a_full_pipe() -> None:
    read_end, write_end = os.pipe()
    script = "lines(5000)\nfrom app.cli.main import leave_unfinished\nleave_unfinished()"
    child = subprocess.Popen([sys.executable, "-c", BEGIN + script], stderr=write_end)
    os.close(write_end)
    try:
        assert child.wait(TIMEOUT_S) == 70
    finally:
        child.kill()
        os.close(read_end)


def test_lost_lines_are_counted_in_the_metrics() -> None:
    script = (
        "from app.core.metrics import Metrics\n"
        "metrics = Metrics()\n"
        "lines(5)\n"
        "logging.getLogger().handlers[0].flush()\n"
        "metrics.count_dropped_lines(); metrics.count_dropped_lines()\n"
        "print(metrics.registry.get_sample_value('mlapi_log_lines_dropped_total'))\n"
    )
    closed = "import os, sys\nos.close(2)\nsys.stderr = None\n"
    ended = subprocess.run(
        [sys.executable, "-c", closed + BEGIN + script],
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    assert ended.stdout == "5.0\n"
