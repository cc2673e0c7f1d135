"""The end of a process, told by a signal: nothing that was accepted is dropped, the status is 0."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg2  # type: ignore[import-untyped]  # no type information is published
import pytest
import redis
from process import APP, STOP_TIMEOUT_S, Service, environment, service
from servers import Postgres, Valkey
from servers import valkey as own_valkey
from serving import FAKE
from workers import EMBEDDER, finish, job, submit, until, worker

pytestmark = pytest.mark.system

# A commit takes many of these.
SLOW = EMBEDDER.replace("delay_ms = 20", "delay_ms = 1_500")
HURRIED_S = 6.0  # a second to answer, two for last lines, one to close, and the machine is busy
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextmanager
def shop(
    folder: Path, postgres: Postgres, broker: Valkey, models: str = EMBEDDER, **settings: Any
) -> Iterator[tuple[Service, dict[str, Any]]]:
    """A service that takes jobs, for workers elsewhere; and the settings that they need."""
    with postgres.database() as url:
        shared = {"database_url": url, "redis_url": broker.url, "jobs": "on", **settings}
        subprocess.run([APP, "db", "upgrade"], env=environment(folder, **shared), check=True)
        with service(folder, models, **shared) as made:
            made.wait_ready()
            yield made, {**shared, "models_file": folder / "models.toml"}


def has_begun(made: Service, job_id: str) -> bool:
    return bool(job(made, job_id)["progress"]["done"] > 0)


def test_a_worker_that_is_told_to_end_puts_its_job_back(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with shop(tmp_path, postgres, valkey) as (made, settings):
        job_id = submit(made, 1_000)
        with worker(tmp_path, **settings) as hand:
            until(lambda: has_begun(made, job_id), made.log)
            hand.send_signal(signal.SIGTERM)
            assert hand.wait(STOP_TIMEOUT_S) == 0
        left = job(made, job_id)
        assert left["status"] == "queued"
        assert left["error"] is None
        assert 0 < left["progress"]["done"] < 1_000
        with worker(tmp_path, **settings):
            assert finish(made, job_id)["status"] == "succeeded"


def test_a_second_signal_ends_a_worker_in_the_middle_of_a_batch(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with shop(tmp_path, postgres, valkey, SLOW) as (made, settings):
        job_id = submit(made, 500)
        with worker(tmp_path, **settings) as hand:
            until(lambda: job(made, job_id)["status"] == "running", made.log)
            hand.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                hand.wait(1)
            began_s = time.monotonic()
            for _ in range(2):  # the third changes nothing
                hand.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            until(lambda: job(made, job_id)["status"] == "queued", made.log)
            assert hand.wait(STOP_TIMEOUT_S) == 0
            print(f"worker ended {time.monotonic() - began_s:.1f} s after the second signal")


def test_a_worker_that_gets_nothing_done_ends_within_its_budget(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with shop(tmp_path, postgres, valkey, SLOW, shutdown_budget_s=1) as (made, settings):
        job_id = submit(made, 500)
        with worker(tmp_path, **settings) as hand:
            until(lambda: job(made, job_id)["status"] == "running", made.log)
            hand.send_signal(signal.SIGTERM)
            assert hand.wait(1 + 10 + 5) == 0
        assert job(made, job_id)["status"] == "queued"


@pytest.mark.parametrize("number", SIGNALS)
def test_an_idle_worker_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    with own_valkey() as broker, worker(tmp_path, redis_url=broker.url) as hand:
        until(lambda: listens(broker), "a worker that listens")
        hand.send_signal(number)
        assert hand.wait(STOP_TIMEOUT_S) == 0


def handles(pid: int, number: signal.Signals) -> bool:
    """Tell whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(caught >> (number - 1) & 1)


def test_a_worker_whose_broker_is_silent_ends_all_the_same(tmp_path: Path) -> None:
    with own_valkey() as broker, worker(tmp_path, redis_url=broker.url) as hand:
        until(lambda: listens(broker), "a worker that listens")
        assert broker.server is not None
        with broker.server.frozen():
            hand.send_signal(signal.SIGTERM)
            hand.send_signal(signal.SIGTERM)
            assert hand.wait(STOP_TIMEOUT_S) == 0


def listens(broker: Valkey) -> bool:
    """Tell whether a worker has connected to its queue."""
    client = redis.Redis.from_url(broker.url)
    try:
        return any(b"mlapi-jobs" in key for key in client.keys("*"))  # type: ignore[union-attr]  # the client is synchronous
    finally:
        client.close()


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_signal_while_the_program_is_read_ends_it_well(tmp_path: Path, command: str) -> None:
    process = subprocess.Popen(
        [APP, command], env=environment(tmp_path, redis_url="redis://127.0.0.1:1"), cwd=tmp_path
    )
    until(lambda: handles(process.pid, signal.SIGTERM), "a handler")
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0


def test_who_follows_a_job_is_told_at_once(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with shop(tmp_path, postgres, valkey, drain_delay_s=1) as (made, _):
        job_id = submit(made, 10)
        with httpx2.stream("GET", f"{made.url}/jobs/{job_id}/events", timeout=30) as followed:
            lines = followed.iter_lines()
            assert next(lines) == "event: job"
            made.process.send_signal(signal.SIGTERM)
            told = [line for line in lines if line]
        assert told[-2] == "event: error"
        assert json.loads(told[-1].removeprefix("data: "))["code"] == "not_ready"
        assert made.process.wait(STOP_TIMEOUT_S) == 0


def test_the_log_of_answers_is_written_before_the_end(tmp_path: Path, postgres: Postgres) -> None:
    with postgres.database() as url:
        settings = {"database_url": url, "drain_delay_s": 1}
        subprocess.run([APP, "db", "upgrade"], env=environment(tmp_path, **settings), check=True)
        with service(tmp_path, FAKE, **settings) as made, httpx2.Client() as client:
            made.wait_ready()
            answers = 0
            made.process.send_signal(signal.SIGTERM)
            try:
                while client.post(f"{made.url}/predict", json={"text": "x"}).status_code == 200:
                    answers += 1
            except httpx2.ConnectError:
                assert answers > 0
            assert made.process.wait(STOP_TIMEOUT_S) == 0
        connection = psycopg2.connect(url)
        cursor = connection.cursor()
        cursor.execute("SELECT count(*) FROM predictions")
        assert cursor.fetchone() == (answers,)
        connection.close()


def test_what_comes_until_readiness_has_failed_as_the_kubelet_asks_is_answered(
    tmp_path: Path,
) -> None:
    period_s, failures = 0.5, 2  # a tenth of deploy/kubernetes
    settings = {"drain_delay_s": 2, "probe_port": 0}
    with service(tmp_path, FAKE, **settings) as made, httpx2.Client() as client:
        made.wait_ready()
        port = next(
            json.loads(line)["port"] for line in made.log.splitlines() if "probes_listening" in line
        )
        made.process.send_signal(signal.SIGTERM)
        failed, answers, due_s = 0, 0, time.monotonic()
        while failed < failures:
            answer = client.post(f"{made.url}/predict", json={"text": "x"}, timeout=10)
            assert answer.status_code == 200
            answers += 1
            if time.monotonic() > due_s:
                due_s += period_s
                asked = httpx2.get(f"http://127.0.0.1:{port}/ready", timeout=4).status_code
                failed = failed + 1 if asked == 503 else 0
        assert made.process.wait(STOP_TIMEOUT_S) == 0
        print(f"{answers} answers between SIGTERM and the removal")


def test_an_engine_that_hangs_holds_nothing_up(tmp_path: Path) -> None:
    models = FAKE.replace("fail_on", "delay_ms = 2_500, fail_on")
    with (
        service(tmp_path, models, shutdown_budget_s=1) as made,
        ThreadPoolExecutor() as threads,
    ):
        until(lambda: "model_ready" in made.log, made.log)
        asked = threads.submit(httpx2.post, f"{made.url}/predict", json={"text": "x"}, timeout=60)
        until(lambda: '"/predict",method="POST"} 1.0' in metrics_of(made), made.log)
        began_s = time.monotonic()
        assert made.stop() == 0
        print(f"ended {time.monotonic() - began_s:.1f} s after the signal, budget 1 s")
        assert asked.result().json()["code"] == "not_ready"
        assert "Traceback" not in made.log


def metrics_of(made: Service) -> str:
    return httpx2.get(f"{made.url}/metrics", timeout=10).text


def test_a_second_signal_hurries_and_a_third_changes_nothing(tmp_path: Path) -> None:
    with service(tmp_path, FAKE, drain_delay_s=60, shutdown_budget_s=60) as made:
        made.wait_ready()
        made.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            made.process.wait(1)
        began_s = time.monotonic()
        made.process.send_signal(signal.SIGTERM)
        made.process.send_signal(signal.SIGINT)
        assert made.process.wait(STOP_TIMEOUT_S) == 0
        took_s = time.monotonic() - began_s
        print(f"ended {took_s:.1f} s after the second signal")
        assert took_s < HURRIED_S
