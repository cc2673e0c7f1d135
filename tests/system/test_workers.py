"""Jobs with real processes: the embedded Valkey and worker, a worker of one's own, and kills."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from converted import CONVERTED
from process import APP, STOP_TIMEOUT_S, environment, service
from servers import Postgres, Valkey, free_port, is_alive
from workers import EMBEDDER, below, finish, has_worker, job, submit, until, worker

pytestmark = pytest.mark.system

on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells children of a parent's death"
)


def test_the_default_models_make_documents_searchable(tmp_path: Path) -> None:
    with service(tmp_path, jobs="on", model_cache_dir=CONVERTED) as made:
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


def replaced(port: int) -> float:
    """Return what a worker's metrics say of its children; 0 while there is none."""
    try:
        page = httpx2.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
    except httpx2.TransportError:
        return 0
    return float(page.partition("\nmlapi_worker_restarts_total ")[2].partition("\n")[0])


def test_a_worker_whose_engine_is_broken_is_replaced_and_blames_no_document(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with postgres.database() as url:
        shared = {"database_url": url, "redis_url": valkey.url, "jobs": "on"}
        settings = environment(tmp_path, **shared)
        subprocess.run([APP, "db", "upgrade"], env=settings, check=True)
        broken = tmp_path / "broken.toml"
        broken.write_text(EMBEDDER.replace("delay_ms = 20", 'fail_on = "good"'), encoding="utf-8")
        with service(tmp_path, EMBEDDER, **shared) as made:
            made.wait_ready()
            job_id = submit(made, 20, "good text")
            log = tmp_path / "worker.log"
            port = free_port()
            with worker(tmp_path, **shared, models_file=broken, worker_metrics_port=port) as hand:
                until(lambda: log.read_text().count("worker_broken") >= 2, made.log)
                until(lambda: replaced(port) >= 2, made.log)
                hand.send_signal(signal.SIGTERM)
                assert hand.wait(STOP_TIMEOUT_S) == 0
            seen = job(made, job_id)
            assert (seen["status"], seen["progress"]["failed"]) == ("queued", 0)
            assert seen["error"]["code"] == "engine_failed"
            with worker(tmp_path, **shared, models_file=tmp_path / "models.toml"):
                done = finish(made, job_id)
            assert (done["status"], done["progress"]["done"]) == ("succeeded", 20)
