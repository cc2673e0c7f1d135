"""What a process of a class has no room for, and how long it may take: it harms that call alone."""

import asyncio
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from serving import batched
from user_classes import call, loaded

from app.batching.deadline import Deadline
from app.engines.python import frames
from app.engines.python.health import HealthCheck
from app.engines.python.model_process import _pause_s
from app.engines.python.process_runner import ProcessRunner

LATE = 30.0
HOLDS = """
import pathlib, time

class Model:
    def predict_one(self, item: str) -> str:
        while not pathlib.Path(__file__).with_name("go").exists():
            time.sleep(0.01)
        return item
"""
LIMITED = """
import os, resource
from collections.abc import Iterator

class Model:
    def load(self):
        # Shared memory is a file, and larger ones have no room.
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    def predict(self, items: list[str]) -> list[str]:
        return [str(os.getpid()) if item == "pid" else item * 300 for item in items]

    def stream(self, item: str) -> Iterator[str]:
        yield item * 300
"""


async def test_an_answer_without_room_in_shared_memory_fails_alone(tmp_path: Path) -> None:
    with loaded(tmp_path, LIMITED) as engine:
        scheduler = batched(engine, max_batch_tokens=10_000)
        large, pid = "x" * 1_000, "pid"
        outcome = await scheduler.submit([large, pid, large], deadline=Deadline.after(LATE))
        first, second, third = outcome.rows
        assert isinstance(first, MemoryError)
        assert isinstance(third, MemoryError)
        assert call(engine, "pid") == [second.content.decode().strip('"')]  # it still runs


async def test_items_without_room_in_shared_memory_fail_alone(tmp_path: Path) -> None:
    with loaded(tmp_path, LIMITED) as engine:
        runner = engine._runner  # what it is made of
        assert isinstance(runner, ProcessRunner)
        running_one = runner.processes[0]._running
        assert running_one is not None
        assert running_one.memory is not None
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, running_one.memory.outgoing)
        os.close(full)
        (pid,) = call(engine, "pid")
        with pytest.raises(MemoryError, match="no room in shared memory"):
            call(engine, "x" * 1_000_000)
        assert call(engine, "pid") == [pid]


def test_what_is_too_long_for_a_message_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "MAX_BLOB_BYTES", 100)
    one, other = socket.socketpair()
    sender, receiver = frames.Channel(one, None), frames.Channel(other, None)
    with pytest.raises(frames.NoRoomError, match="too long"):
        sender.send({}, [b"x" * 60, b"y" * 60])
    sender.send({"call": "next"}, [b"z"])
    assert receiver.receive(until_s=time.monotonic() + LATE).blobs == [b"z"]
    sender.close()
    receiver.close()


async def test_a_long_call_in_a_process_makes_nothing_unhealthy_and_one_in_a_thread_does(
    tmp_path: Path,
) -> None:
    for isolation, problems in (("process", 0), ("thread", 1)):
        with loaded(tmp_path, HOLDS, isolation=isolation, timeout_s=LATE) as engine:
            scheduler = batched(engine)
            asked = asyncio.create_task(scheduler.submit(["x"], deadline=Deadline.after(LATE)))
            async with asyncio.timeout(LATE):
                while not scheduler.longest_call_s():
                    await asyncio.sleep(0.01)
                assert len(scheduler.problems(max_call_s=0.0)) == problems
                (tmp_path / "go").touch()
                await asked
                (tmp_path / "go").unlink()


def test_a_check_that_something_else_ends_is_waited_for() -> None:
    go = threading.Event()
    for max_check_s, problems in ((None, 0), (0.0, 1)):
        asked = threading.Event()

        def check(asked: threading.Event = asked) -> None:
            asked.set()
            go.wait(LATE)

        health = HealthCheck(check, name="test", max_check_s=max_check_s)
        assert asked.wait(LATE)
        assert len(health.problems()) == problems
        health.close()
    go.set()


def test_one_that_served_is_back_at_once_and_soon_where_it_ends_again_and_again() -> None:
    pauses_s = [_pause_s(before, has_served=True) for before in range(30)]
    assert pauses_s[:3] == [0.0, 0.1, 0.2]
    assert max(pauses_s) < 1  # back within two seconds beside its load
    assert _pause_s(0, has_served=False) > 0
    assert _pause_s(30, has_served=False) == 30
