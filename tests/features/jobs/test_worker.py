"""`app worker`: what it needs, what it does, how it stops; tests/system kills it."""

import signal
import socket
import subprocess
from pathlib import Path

import httpx2
import pytest
from process import APP, STOP_TIMEOUT_S, environment, service
from servers import Postgres, Valkey, free_port
from serving import make_settings
from workers import EMBEDDER, TIMEOUT_S, below, finish, job, submit, worker

from app.errors import SettingsError
from app.features.jobs.embedded import SOCKET_PATH_FILE
from app.features.jobs.worker import find_broker


def test_a_worker_elsewhere_needs_sql_and_redis_alone(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    with postgres.database() as url:
        port = free_port()
        shared = {"database_url": url, "redis_url": valkey.url, "jobs": "on"}
        settings = environment(tmp_path, **shared)
        subprocess.run([APP, "db", "upgrade"], env=settings, check=True)
        with service(tmp_path, EMBEDDER, **shared) as api:
            api.wait_ready()
            assert not any("valkey" in args for args in below(api.process.pid).values())
            job_id = submit(api, 300)
            assert job(api, job_id)["status"] == "queued"
            models = tmp_path / "models.toml"
            with worker(tmp_path, **shared, models_file=models, worker_metrics_port=port) as hand:
                assert finish(api, job_id)["status"] == "succeeded"
                page = httpx2.get(f"http://127.0.0.1:{port}/metrics").text
                assert 'mlapi_job_items_total{state="done"} 300.0' in page
                hand.send_signal(signal.SIGTERM)
                assert hand.wait(STOP_TIMEOUT_S) == 0
            answer = httpx2.post(f"{api.url}/search", json={"query": "text number 7", "top_k": 3})
            assert len(answer.json()["results"]) == 3


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


def test_the_broker_is_that_of_the_setting_or_of_a_service_on_this_machine(tmp_path: Path) -> None:
    with_url = make_settings(tmp_path, redis_url="redis://:secret@somewhere/1")
    assert find_broker(with_url) == "redis://:secret@somewhere/1"
    settings = make_settings(tmp_path)
    file = settings.data_dir / SOCKET_PATH_FILE
    with pytest.raises(SettingsError, match="REDIS_URL"):
        find_broker(settings)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(str(tmp_path / "broker.sock"), encoding="utf-8")
    with pytest.raises(SettingsError, match="no service runs"):
        find_broker(settings)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "broker.sock"))
        assert find_broker(settings) == f"unix://{tmp_path / 'broker.sock'}"
