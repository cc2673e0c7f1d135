"""Python classes in processes of a real service: they end with it, and harm nothing else."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from process import Service, service
from serving import FAKE

pytestmark = pytest.mark.system

LATE = 30.0
CODE = """
import ctypes, os

class Model:
    def predict_one(self, item: str) -> str:
        print("hunter2", item)
        os.write(1, b"hunter2")
        if item == "crash":
            ctypes.string_at(0)
        return str(os.getpid()) if item == "pid" else item.upper()
"""
ENTRY = """
[[models]]
name = "{}"
engine = "python"
source = "file:model.py:Model"
required = false
timeout_s = 1
"""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Service]:
    (folder / "model.py").write_text(CODE, encoding="utf-8")
    models = folder / "models.toml"
    models.write_text(FAKE + ENTRY.format("victim") + ENTRY.format("other"), encoding="utf-8")
    with service(folder, models_file=models) as running:
        running.wait_ready()
        for name in ("victim", "other"):
            pid_of(running, name)  # readiness doesn't wait for what isn't required
        yield running


def ask(running: Service, name: str, item: str = "pid") -> httpx2.Response:
    return httpx2.post(f"{running.url}/predict/{name}", json=item, timeout=LATE)


def pid_of(running: Service, name: str = "victim") -> int:
    """Return the number of a model's process, once it is up."""
    until_s = time.monotonic() + LATE
    while (answer := ask(running, name)).status_code != 200:
        assert time.monotonic() < until_s
        time.sleep(0.02)  # another process starts
    return int(answer.json())


def ends(pid: int) -> bool:
    until_s = time.monotonic() + LATE
    while time.monotonic() < until_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)  # another process ends
    return False


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSTOP", "crash"])
def test_a_process_that_ends_under_load_harms_no_other_model(tmp_path: Path, how: str) -> None:
    with serving(tmp_path) as running:
        seen: dict[str, Counter[int]] = {"victim": Counter(), "other": Counter()}
        codes: Counter[str] = Counter()
        is_over = threading.Event()

        def load(name: str) -> None:
            while not is_over.is_set():
                answer = ask(running, name, "good")
                seen[name][answer.status_code] += 1
                if answer.status_code != 200:
                    codes[answer.json()["code"]] += 1

        threads = [threading.Thread(target=load, args=(name,)) for name in seen for _ in "12"]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                before = pid_of(running)
                if how == "crash":
                    crashed = ask(running, "victim", "crash")
                    assert crashed.json()["code"] == "model_crashed"
                else:
                    os.kill(before, getattr(signal, how))
                while pid_of(running) == before:
                    time.sleep(0.02)
                assert ends(before)
        finally:
            is_over.set()
            for thread in threads:
                thread.join(LATE)
        assert set(seen["other"]) == {200}
        assert set(seen["victim"]) <= {200, 503}
        assert set(codes) <= {"model_crashed", "model_not_ready"}
        assert httpx2.get(f"{running.url}/health").json() == {"status": "ok"}
        lines = [json.loads(line) for line in running.log.splitlines() if line.startswith("{")]
        assert sum(line["event"] == "model_process_ended" for line in lines) == 3


def test_processes_end_with_a_service_that_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        pids = pid_of(running), pid_of(running, "other")
        running.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            running.process.wait(LATE)
        assert all(map(ends, pids))


def test_what_a_class_prints_in_its_process_is_told_and_not_shown(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        pid_of(running)
        line = running.wait_logged("model_printed")
        assert "hunter2" not in line
        assert running.stop() == 0
        assert "hunter2" not in running.log
        assert running.process.stdout is not None
        assert running.process.stdout.read() == ""


def test_a_class_that_cant_be_loaded_shows_its_traceback_in_the_log_of_the_service(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as running:
        (tmp_path / "model.py").write_text("import nowhere_at_all\n", encoding="utf-8")
        os.kill(pid_of(running), signal.SIGKILL)
        log = running.wait_logged("model_process_not_loaded")
        assert "No module named 'nowhere_at_all'" in log
        assert httpx2.get(f"{running.url}/health").json()["restarting"]


def test_processes_end_after_the_drain_of_a_service(tmp_path: Path) -> None:
    with serving(tmp_path) as running:
        pid = pid_of(running)
        assert running.stop() == 0
        assert ends(pid)
