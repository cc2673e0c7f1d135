"""A class in processes of its own: what crashes or hangs there harms nothing else."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from httpx2 import AsyncClient
from serving import FAKE, make_app, running
from user_classes import MODEL, call, loaded

from app.engines.python.engine import PythonEngine
from app.engines.python.process_runner import ProcessRunner
from app.engines.python.spawning import first_place
from app.errors import (
    EngineError,
    InvalidRequestError,
    ModelCrashedError,
    SourceError,
    UnsafeModelError,
)

LATE = 30.0


def wait_until_up(engine: PythonEngine) -> None:
    until_s = time.monotonic() + LATE
    while (count := engine.processes()) is None or count.ready < count.wanted:
        assert time.monotonic() < until_s
        threading.Event().wait(0.01)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PythonEngine]:
    with loaded(tmp_path_factory.mktemp("model"), timeout_s=2.0) as engine:
        yield engine


def test_it_answers_from_another_process(engine: PythonEngine) -> None:
    wait_until_up(engine)
    answer, pid = call(engine, "good", "pid")
    assert answer == "GOOD"
    assert int(pid) != os.getpid()


def test_an_item_of_the_wrong_type_is_its_own_error(engine: PythonEngine) -> None:
    wait_until_up(engine)
    good, wrong = call(engine, "good", 3)
    assert good == "GOOD"
    assert isinstance(wrong, InvalidRequestError)
    assert wrong.extensions["errors"][0]["loc"] == ["body"]


def test_items_and_answers_of_megabytes_cross(engine: PythonEngine) -> None:
    wait_until_up(engine)
    text = "x" * 9_000_000
    assert call(engine, text, "small") == [text.upper(), "SMALL"]
    assert call(engine, "small") == ["SMALL"]


def test_what_it_raises_is_told_as_of_a_thread(engine: PythonEngine) -> None:
    wait_until_up(engine)
    with pytest.raises(EngineError, match="predict raised KeyError at line 24") as raised:
        call(engine, "raise")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(MemoryError):
        call(engine, "memory")


@pytest.mark.parametrize(
    ("item", "how"),
    [("crash", "SIGSEGV"), ("leave", "exit status 3"), ("hang", "SIGKILL"), ("stop", "SIGKILL")],
)
def test_a_process_that_ends_or_hangs_is_an_error_of_its_call_and_is_replaced(
    engine: PythonEngine, item: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    wait_until_up(engine)
    (before,) = call(engine, "pid")
    good, bad = call(engine, "good", item)
    assert isinstance(good, ModelCrashedError)
    assert isinstance(bad, ModelCrashedError)
    assert bad.status == 503
    assert bad.retry_after_s is not None
    wait_until_up(engine)
    (after,) = call(engine, "pid")
    assert after != before
    assert not is_alive(int(before))
    (record,) = [record for record in caplog.records if record.msg == "model_process_ended"]
    assert how in vars(record)["how"]
    # Where it was, but for one that is stopped and can't say it.
    assert ("model.py" in vars(record).get("traceback", "")) == (item in {"crash", "hang"})


def test_answers_that_cant_be_sent_are_the_errors_of_a_thread(tmp_path: Path) -> None:
    code = """
class Model:
    def predict(self, items: list[float]) -> list[float]:
        return [item if item < 9 else float("nan") for item in items if item != 2]
"""
    with loaded(tmp_path, code) as engine:
        good, bad = call(engine, 1.5, 10)
        assert (good, str(bad)) == (
            "1.5",
            "an answer of predict holds NaN or infinity, which JSON doesn't have",
        )
        with pytest.raises(EngineError, match="predict returned 1 answers for 2 items"):
            call(engine, 1, 2)


def shared_memory() -> set[str]:
    """Return what Python has there; other tests' servers keep their files there too."""
    return {path.name for path in Path("/dev/shm").glob("psm_*")}  # noqa: S108  # the kernel's


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_of_it_stays_after_many_ends(engine: PythonEngine) -> None:
    before = shared_memory(), descriptors()
    for _ in range(3):
        wait_until_up(engine)
        (pid,) = call(engine, "pid")
        call(engine, "x" * 1_000_000)
        os.kill(int(pid), signal.SIGKILL)
        call(engine, "good")
    wait_until_up(engine)
    assert (shared_memory(), descriptors()) == before


def test_it_gets_the_environment_without_the_secrets_of_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADMIN_KEY", "hunter2")
    monkeypatch.setenv("OTHER", "passed")
    with loaded(tmp_path, hidden=frozenset({"ADMIN_KEY"})) as engine:
        assert call(engine, "$ADMIN_KEY", "$OTHER") == ["none", "passed"]


def test_it_ignores_the_signals_of_a_terminal_and_ends_when_it_is_closed(tmp_path: Path) -> None:
    with loaded(tmp_path) as engine:
        (pid,) = map(int, call(engine, "pid"))
        assert os.getpgid(pid) != os.getpgid(0)
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        assert call(engine, "pid") == [str(pid)]
    assert not is_alive(pid)


def test_several_workers_are_several_processes_and_one_that_ends_harms_no_other(
    tmp_path: Path,
) -> None:
    code = MODEL.replace('if item == "pid":', 'if item == "pid":\n            time.sleep(0.2)')
    with loaded(tmp_path, code, workers=2) as engine:
        rows: list[Any] = []
        threads = [threading.Thread(target=lambda: rows.extend(call(engine, "pid"))) for _ in "12"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LATE)
        assert len(set(rows)) == 2
        assert isinstance(call(engine, "crash")[0], ModelCrashedError)
        assert call(engine, "good") == ["GOOD"]
        wait_until_up(engine)


def test_a_file_that_was_changed_meanwhile_isnt_run_instead(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with loaded(tmp_path) as engine:
        (tmp_path / "model.py").write_text(MODEL + "\n# another\n", encoding="utf-8")
        call(engine, "leave")
        until_s = time.monotonic() + LATE
        while not [r for r in caplog.records if r.msg == "model_process_not_loaded"]:
            assert time.monotonic() < until_s
            threading.Event().wait(0.01)
        (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
        wait_until_up(engine)
        assert call(engine, "good") == ["GOOD"]


@pytest.mark.parametrize(
    ("code", "error", "line"),
    [
        ("class Model:\n    pass\n", EngineError, "neither predict"),
        ("import nowhere_at_all\n", EngineError, "No module named"),
        ("Other = 3\n", SourceError, "there is no Model"),
        ("import os\nos._exit(4)\n", EngineError, "ended while it loaded: exit status 4"),
        ("import signal\nsignal.raise_signal(11)\n", EngineError, r"SIGSEGV at File .*model.py"),
    ],
)
def test_a_class_that_cant_be_loaded_is_refused_in_the_line_of_a_thread(
    tmp_path: Path, code: str, error: type[Exception], line: str
) -> None:
    with pytest.raises(error, match=line), loaded(tmp_path, code):
        pass


def test_the_place_of_a_crash_is_that_of_the_thread_that_crashed() -> None:
    notes = (
        "Fatal Python error: Segmentation fault\n\n"
        'Thread 0x1 (most recent call first):\n  File "log_writer.py", line 104 in _write_some\n\n'
        'Current thread 0x2 (most recent call first):\n  File "model.py", line 2 in <module>\n'
    )
    assert first_place(notes) == ' at File "model.py", line 2 in <module>'


def test_its_traceback_at_load_is_in_the_log_and_its_message_in_no_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = MODEL + "    def load(self, device):\n        raise ValueError('hunter2')\n"
    line = "load raises ValueError at line"
    with pytest.raises(EngineError, match=line) as refused, loaded(tmp_path, code):
        pass
    assert "hunter2" not in refused.value.line
    assert "hunter2" in caplog.text
    assert "in load" in caplog.text


def test_the_pinned_digest_holds_there_too(tmp_path: Path) -> None:
    with pytest.raises(UnsafeModelError, match="sha256"), loaded(tmp_path, pins={"": "0" * 64}):
        pass


def test_a_cost_that_hangs_is_an_error_in_time(tmp_path: Path) -> None:
    code = MODEL + (
        "    def cost(self, item):\n        while item == 'hang':\n            pass\n"
        "        return len(item)\n"
    )
    with loaded(tmp_path, code, timeout_s=1.0) as engine:
        assert [item.cost for item in engine.encode(["a", "abc"])] == [1, 3]  # type: ignore[union-attr]
        (late,) = engine.encode(["hang"])
        assert isinstance(late, ModelCrashedError)
        wait_until_up(engine)


def test_its_check_is_asked_while_a_call_runs(tmp_path: Path) -> None:
    code = MODEL + "    def check(self):\n        return 'too warm'\n"
    with loaded(tmp_path, code, timeout_s=5.0) as engine:
        runner = engine._runner  # what it is made of
        assert isinstance(runner, ProcessRunner)
        hanging = threading.Thread(target=lambda: call(engine, "hang"))
        hanging.start()
        assert runner.check() == "check: too warm"
        hanging.join(LATE)


ENTRY = '[[models]]\nname = "mine"\nengine = "python"\nsource = "file:model.py:Model"\n'


@asynccontextmanager
async def served(folder: Path, entry: str = ENTRY) -> AsyncIterator[tuple[AsyncClient, Any]]:
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    app = make_app(folder, FAKE + entry)
    async with running(app) as client:
        yield client, app


async def until_ready(client: AsyncClient) -> None:
    async with asyncio.timeout(LATE):
        while (await client.get("/ready")).json().get("degraded") != []:
            await asyncio.sleep(0.01)


async def test_on_a_cpu_it_is_the_default_and_probes_follow_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(tmp_path) as (client, app):
        pid = int((await client.post("/predict/mine", json="pid")).json())
        assert pid != os.getpid()
        value = app.state.runtime.metrics.registry.get_sample_value
        ends = {"model": "mine", "reason": "crashed"}
        assert value("mlapi_model_process_ends_total", ends) == 0
        # Stopped, its successor can't load before it was looked at.
        (tmp_path / "model.py").write_text("not the same", encoding="utf-8")
        crashed = await client.post("/predict/mine", json="crash")
        assert (crashed.status_code, crashed.json()["code"]) == (503, "model_crashed")
        assert int(crashed.headers["Retry-After"]) >= 1
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
        assert "mine (restarting)" in ready.json()["detail"]
        health = await client.get("/health")
        assert (health.status_code, health.json()["restarting"]) == (
            200,
            ["mine: 0 of 1 processes"],
        )
        again = await client.post("/predict/mine", json="good")
        assert (again.status_code, again.json()["code"]) == (503, "model_not_ready")
        assert (await client.post("/predict/dummy", json={"text": "x"})).status_code == 200
        models = (await client.get("/models")).json()["models"]
        assert [model["state"] for model in models] == ["ready", "restarting"]
        (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
        await until_ready(client)
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.post("/predict/mine", json="good")).json() == "GOOD"
        assert value("mlapi_model_processes", {"model": "mine"}) == 1
        assert value("mlapi_model_process_ends_total", ends) == 1


async def test_one_process_of_two_is_degraded_and_still_ready(tmp_path: Path) -> None:
    async with served(tmp_path, ENTRY + "workers = 2\n") as (client, _):
        (tmp_path / "model.py").write_text("not the same", encoding="utf-8")
        await client.post("/predict/mine", json="crash")
        ready = await client.get("/ready")
        assert ready.status_code == 200
        assert ready.json()["degraded"] == ["processes:mine: 1 of 2 processes"]
        assert (await client.post("/predict/mine", json="good")).json() == "GOOD"


async def test_a_call_past_its_time_is_503_and_the_time_is_the_entrys(tmp_path: Path) -> None:
    async with served(tmp_path, ENTRY + "timeout_s = 1\n") as (client, _):
        late = await client.post("/predict/mine", json="stop")
        assert (late.status_code, late.json()["code"]) == (503, "model_crashed")
        assert "did not answer in time" in late.json()["detail"]
        await until_ready(client)


async def test_it_goes_with_the_service(tmp_path: Path) -> None:
    async with served(tmp_path) as (client, _):
        pid = int((await client.post("/predict/mine", json="pid")).json())
    assert not is_alive(pid)
