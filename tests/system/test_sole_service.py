"""Two services on one DATA_DIR, as real processes: the second is refused, or they share it."""

import signal
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
from process import APP, START_TIMEOUT_S, STOP_TIMEOUT_S, environment, run, service
from servers import Postgres, Valkey
from serving import FAKE

pytestmark = pytest.mark.system


def serve(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """Try to start a service where one runs; to its end, which comes when it is refused."""
    return subprocess.run(
        [APP, "serve", "--port", "0"],
        cwd=folder,
        env=environment(folder, models_file=folder / "models.toml", **settings),
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=START_TIMEOUT_S,
    )


def test_a_second_service_is_refused_with_the_firsts_id_and_commands_are_not(
    tmp_path: Path,
) -> None:
    with service(tmp_path, FAKE) as first:
        first.wait_ready()
        for second in (serve(tmp_path), serve(tmp_path, front_ends=2)):
            assert second.returncode == 1
            assert f"(process {first.process.pid})" in second.stderr.splitlines()[-1]
            assert "Traceback" not in second.stderr
        assert run(tmp_path, "keys", "create", "--name", "x", "--scopes", "predict").returncode == 0
        assert run(tmp_path, "db", "upgrade").returncode == 0
        answer = httpx2.post(f"{first.url}/predict", json={"text": "x"}, timeout=30)
        assert answer.status_code == 200
        first.process.kill()
        first.process.wait(STOP_TIMEOUT_S)
    with service(tmp_path, FAKE, front_ends=2) as next_one:
        next_one.wait_ready()
        refused = serve(tmp_path)
        assert f"(process {next_one.process.pid})" in refused.stderr
        assert next_one.stop() == 0
    with service(tmp_path, FAKE) as last:
        last.wait_ready()


def test_of_two_that_are_started_at_once_one_serves(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(FAKE, encoding="utf-8")
    started = [
        subprocess.Popen(
            [APP, "serve", "--port", "0"],
            cwd=tmp_path,
            env=environment(tmp_path, models_file=models),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        until_s = time.monotonic() + START_TIMEOUT_S
        while all(each.poll() is None for each in started):
            assert time.monotonic() < until_s
            time.sleep(0.02)
        (refused,) = (each for each in started if each.poll() is not None)
        (serving,) = (each for each in started if each is not refused)
        assert refused.returncode == 1
        assert refused.stderr is not None
        assert f"(process {serving.pid})" in refused.stderr.read()
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(STOP_TIMEOUT_S) == 0
    finally:
        for each in started:
            each.kill()
            each.wait()
            assert each.stderr is not None
            each.stderr.close()


def test_with_postgresql_and_redis_services_share_a_data_dir(
    tmp_path: Path, postgres: Postgres, valkey: Valkey
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    with postgres.database() as url:
        shared = {
            "database_url": url,
            "redis_url": valkey.url,
            "jobs": "on",
            "data_dir": tmp_path / "data",
        }
        assert run(one, "db", "upgrade", **shared).returncode == 0
        with service(one, FAKE, **shared) as first, service(other, FAKE, **shared) as second:
            for each in (first, second):
                each.wait_ready()
                answer = httpx2.post(f"{each.url}/predict", json={"text": "x"}, timeout=30)
                assert answer.status_code == 200
                assert each.stop() == 0
