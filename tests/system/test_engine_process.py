"""Front ends share one process that runs their models: killed, stopped, and ended last."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from process import Service
from test_front_ends import (
    Load,
    answered,
    children,
    degraded,
    front_ends,
    metric,
    predict,
    processes,
)
from workers import until

pytestmark = pytest.mark.system

MODELS = """
[[models]]
name = "dummy"
engine = "fake"
required = true
fake = { delay_ms = 20 }

[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for all tests: each leaves it as it was."""
    folder = tmp_path_factory.mktemp("service")
    with front_ends(folder, 2, MODELS, health_max_lag_ms=2_000, inference_threads=2) as service:
        yield service
        assert service.stop() == 0
        assert not service.log.count("Traceback")


def engine(made: Service) -> int:
    """The process of the models."""
    (pid,) = [pid for pid, command in processes(made).items() if "--engine-process\0" in command]
    return pid


def states(made: Service) -> set[str]:
    answer = httpx2.get(f"{made.url}/ready", timeout=10).json()
    return {model["state"] for model in answer.get("models", [])}


def test_what_models_count_is_counted_once(made: Service) -> None:
    before = answered(made), metric(made, "mlapi_batch_size_sum", model="dummy")
    assert [predict(made) for _ in range(20)] == [200] * 20
    after = answered(made), metric(made, "mlapi_batch_size_sum", model="dummy")
    assert (after[0] - before[0], after[1] - before[1]) == (20, 20)
    assert metric(made, "mlapi_model_ready", model="vectors") == 1
    assert len(children(made)) == 2


def test_when_it_is_killed_requests_get_a_typed_error_until_it_is_back(made: Service) -> None:
    refusals: list[httpx2.Response] = []
    is_over = threading.Event()

    def look_for_refusals() -> None:
        while not is_over.is_set():
            answer = httpx2.post(f"{made.url}/embed", json={"texts": ["x"]}, timeout=30)
            refusals.extend([answer] if answer.status_code != 200 else [])

    watching = threading.Thread(target=look_for_refusals)
    with Load(made) as load:
        watching.start()
        until(lambda: load.statuses[200] > 50, made.log)
        killed = engine(made)
        os.kill(killed, signal.SIGKILL)
        until(lambda: httpx2.get(f"{made.url}/ready").status_code == 503, made.log)
        assert httpx2.get(f"{made.url}/health", timeout=10).status_code == 200
        until(lambda: states(made) == {"ready"} and not degraded(made), made.log)
        so_far = load.statuses[200]
        until(lambda: load.statuses[200] > so_far + 50, made.log)
        is_over.set()
        watching.join()
    print(f"answers: {dict(load.statuses)}")
    assert set(load.statuses) == {200, 503}
    assert refusals
    for refusal in refusals:
        assert refusal.status_code == 503
        assert refusal.json()["code"] in {"model_not_ready", "not_ready", "overloaded"}
        assert int(refusal.headers["Retry-After"]) >= 1
    assert engine(made) != killed
    assert len(children(made)) == 2
    assert metric(made, "mlapi_engine_restarts_total") == 1
    assert metric(made, "mlapi_engine_link_losses_total") == 2
    made.wait_logged('"engine_process_ended"')


def test_requests_of_a_front_end_that_is_killed_leave_the_queue(made: Service) -> None:
    texts = ["x"] * 256  # 20 ms for each 8: both workers are busy for a third of a second
    statuses: list[int] = []

    def ask() -> None:
        try:
            body = {"texts": texts}
            answer = httpx2.post(f"{made.url}/predict-batch", json=body, timeout=30)
            statuses.append(answer.status_code)
        except httpx2.TransportError:
            statuses.append(0)

    dropped = metric(made, "mlapi_cancelled_total", model="dummy")
    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    until(lambda: metric(made, "mlapi_queue_depth", model="dummy") > 2_000, made.log)
    killed = children(made)[0]
    os.kill(killed, signal.SIGKILL)
    for thread in threads:
        thread.join()
    print(f"answers: {sorted(statuses)}")
    assert set(statuses) == {0, 200}
    # Those of its requests that had no answer, 256 texts each, but for what was in the engine.
    until(lambda: metric(made, "mlapi_cancelled_total", model="dummy") > dropped, made.log)
    lost = statuses.count(0) * len(texts)
    assert 0 < metric(made, "mlapi_cancelled_total", model="dummy") - dropped <= lost
    until(lambda: len(children(made)) == 2 and killed not in children(made), made.log)
    until(lambda: not degraded(made), made.log)


def test_while_it_is_stopped_deadlines_end_the_wait_and_health_fails(made: Service) -> None:
    stopped = engine(made)
    os.kill(stopped, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        answer = httpx2.post(
            f"{made.url}/predict",
            json={"text": "x"},
            headers={"X-Request-Timeout-Ms": "300"},
            timeout=30,
        )
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert time.monotonic() - began_s < 10
        until(lambda: httpx2.get(f"{made.url}/health", timeout=10).status_code == 503, made.log)
        (check,) = httpx2.get(f"{made.url}/health", timeout=10).json()["checks"]
        assert check.startswith("engine: silent for")
    finally:
        os.kill(stopped, signal.SIGCONT)
    until(lambda: httpx2.get(f"{made.url}/health", timeout=10).status_code == 200, made.log)
    assert predict(made) == 200
    assert engine(made) == stopped


def test_a_signal_to_it_alone_changes_nothing(made: Service) -> None:
    told = engine(made)
    os.kill(told, signal.SIGTERM)
    made.wait_logged('"signal_left_to_front_ends"')
    assert predict(made) == 200
    assert engine(made) == told


def test_each_front_end_has_its_own_models_where_they_arent_shared(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2, share_models="false") as alone:
        assert len(processes(alone)) == 2
        assert [predict(alone) for _ in range(4)] == [200] * 4
        assert alone.stop() == 0
