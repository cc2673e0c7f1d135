"""Jobs with real processes: the embedded Valkey and worker, a worker of one's own, and kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from process import APP, DATA, STOP_TIMEOUT_S, Service, environment, service
from servers import Postgres, Valkey, free_port

pytestmark = pytest.mark.system

EMBEDDER = """
[[models]]
name = "vectors"
task = "embedding"
engine = "fake"
default = true
required = true
fake = { delay_ms = 20 }
"""
TIMEOUT_S = 60.0
ADDED_AT_ONCE = 1_000
FINAL = {"succeeded", "failed", "cancelled"}
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells children of a parent's death"
)


def until(claim: Callable[[], bool], said: str) -> None:
    """Wait for another process, which nothing tells of."""
    end = time.monotonic() + TIMEOUT_S
    while not claim():
        assert time.monotonic() < end, said
        time.sleep(0.05)


def below(pid: int) -> dict[int, str]:
    """Return the living processes below one, with their command lines."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            args = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z" and int(parent) == pid:
            found |= {int(folder.name): args, **below(int(folder.name))}
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def submit(made: Service, count: int) -> str:
    documents = [{"id": f"d{i}", "text": f"text number {i}"} for i in range(count)]
    for start in range(0, count, ADDED_AT_ONCE):
        some = {"documents": documents[start : start + ADDED_AT_ONCE]}
        assert httpx2.post(f"{made.url}/documents", json=some, timeout=30).status_code == 201
    wanted = {"doc_ids": [document["id"] for document in documents]}
    answer = httpx2.post(f"{made.url}/embed-batch", json=wanted, timeout=30)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/jobs/{answer.json()['job_id']}"
    return str(answer.json()["job_id"])


def job(made: Service, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{made.url}/jobs/{job_id}").json()
    return found


def finish(made: Service, job_id: str) -> dict[str, Any]:
    until(lambda: job(made, job_id)["status"] in FINAL, made.log)
    return job(made, job_id)


def has_worker(made: Service) -> bool:
    return sum("app worker" in args for args in below(made.process.pid).values()) >= 2


@contextmanager
def worker(folder: Path, **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen(
            [APP, "worker"], cwd=folder, env=environment(folder, **settings), stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_TIMEOUT_S)


def test_the_default_models_make_documents_searchable(tmp_path: Path) -> None:
    with service(tmp_path, jobs="on", model_cache_dir=DATA / "models") as made:
        made.wait_ready()
        documents = [
            {"id": "cats", "text": "The cat sleeps on the warm windowsill all afternoon."},
            {"id": "rates", "text": "The central bank raised interest rates by half a point."},
        ]
        answer = httpx2.post(f"{made.url}/embed-batch", json={"documents": documents})
        assert finish(made, answer.json()["job_id"])["status"] == "succeeded"
        found = httpx2.post(f"{made.url}/search", json={"query": "a pet that naps", "top_k": 1})
        assert found.json()["results"][0]["id"] == "cats"
        assert made.stop() == 0


@on_linux
def test_a_killed_service_leaves_no_process(tmp_path: Path) -> None:
    with service(tmp_path, EMBEDDER, jobs="on") as made:
        made.wait_ready()
        until(lambda: has_worker(made), made.log)
        children = below(made.process.pid)
        assert any("valkey-server" in args for args in children.values())
        made.stop(signal.SIGKILL)
        until(lambda: not any(map(is_alive, children)), f"still there: {children}")


@on_linux
def test_a_stopped_service_leaves_no_process_and_puts_its_job_back(tmp_path: Path) -> None:
    with service(tmp_path, EMBEDDER, jobs="on") as made:
        made.wait_ready()
        job_id = submit(made, 3_000)
        until(lambda: job(made, job_id)["progress"]["done"] > 0, made.log)
        children = below(made.process.pid)
        assert made.stop() == 0
        assert not any(map(is_alive, children))
    with service(tmp_path, EMBEDDER, jobs="on") as again:
        again.wait_ready()
        ended = finish(again, job_id)
        assert (ended["status"], ended["progress"]["done"]) == ("succeeded", 3_000)
        assert ended["attempts"] <= 2


@on_linux
def test_a_killed_worker_is_started_again_and_the_job_goes_on(tmp_path: Path) -> None:
    with service(tmp_path, EMBEDDER, jobs="on", job_lease_s=2) as made:
        made.wait_ready()
        job_id = submit(made, 3_000)
        for _ in range(3):
            done = job(made, job_id)["progress"]["done"]
            until(lambda done=done: job(made, job_id)["progress"]["done"] > done, made.log)  # type: ignore[misc]  # bound now
            workers = [p for p, args in below(made.process.pid).items() if "app worker" in args]
            os.kill(workers[0], signal.SIGKILL)
            until(lambda pid=workers[0]: not is_alive(pid), "the kill")  # type: ignore[misc]  # as above
        ended = finish(made, job_id)
        assert (ended["status"], ended["progress"]["done"]) == ("succeeded", 3_000)


@on_linux
def test_a_killed_valkey_loses_no_job(tmp_path: Path) -> None:
    with service(tmp_path, EMBEDDER, jobs="on") as made:
        made.wait_ready()
        until(lambda: has_worker(made), made.log)
        first = submit(made, 1_000)
        (broker,) = [p for p, args in below(made.process.pid).items() if "valkey" in args]
        os.kill(broker, signal.SIGKILL)
        second = submit(made, 10)
        assert {finish(made, name)["status"] for name in (first, second)} == {"succeeded"}


def test_a_worker_elsewhere_needs_sql_and_redis_alone(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with postgres.database() as url:
        port = free_port()
        shared = {"database_url": url, "redis_url": valkey.url, "jobs": "on"}
        settings = environment(tmp_path, **shared)
        subprocess.run([APP, "db", "upgrade"], env=settings, check=True)
        with service(tmp_path, EMBEDDER, **shared) as made:
            made.wait_ready()
            assert not any("valkey" in args for args in below(made.process.pid).values())
            job_id = submit(made, 300)
            assert job(made, job_id)["status"] == "queued"
            models = tmp_path / "models.toml"
            with worker(tmp_path, **shared, models_file=models, worker_metrics_port=port) as hand:
                assert finish(made, job_id)["status"] == "succeeded"
                page = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
                assert 'mlapi_job_items_total{state="done"} 300.0' in page
                hand.send_signal(signal.SIGTERM)
                assert hand.wait(STOP_TIMEOUT_S) == 0
            found = httpx2.post(f"{made.url}/search", json={"query": "text number 7", "top_k": 3})
            assert len(found.json()["results"]) == 3


def test_a_worker_without_a_broker_says_what_is_missing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [APP, "worker"],
        env=environment(tmp_path, jobs="on"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert ended.returncode == 1
    assert "REDIS_URL" in ended.stderr
    assert ended.stderr.count("\n") == 1
