"""Several service processes on one address: they share the load, and outlive each other."""

import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from process import APP, STOP_TIMEOUT_S, Service, environment, run, service
from prometheus_client.parser import text_string_to_metric_families
from servers import is_alive
from serving import FAKE
from workers import until

pytestmark = pytest.mark.system

SLOW = FAKE.replace("fail_on", "delay_ms = 1_000, fail_on")


@contextmanager
def front_ends(
    folder: Path, count: int = 2, models: str = FAKE, **settings: Any
) -> Iterator[Service]:
    """A service with front ends, all of them ready."""
    with service(folder, models, front_ends=count, **settings) as made:
        made.wait_ready()
        until(lambda: not degraded(made), made.log)
        yield made


def degraded(made: Service) -> list[str]:
    return list(httpx2.get(f"{made.url}/ready", timeout=10).json()["degraded"])


def processes(made: Service) -> dict[int, str]:
    """The processes that the first one has started, with their command lines."""
    pid = made.process.pid
    file = Path(f"/proc/{pid}/task/{pid}/children")
    found = [child for child in map(int, file.read_text().split()) if is_alive(child)]
    return {child: Path(f"/proc/{child}/cmdline").read_text() for child in found}


def children(made: Service) -> list[int]:
    """The front ends' processes."""
    return [pid for pid, command in processes(made).items() if "--front-end\0" in command]


def predict(made: Service) -> int:
    """Ask over a new connection; 0 where it was cut."""
    try:
        return httpx2.post(f"{made.url}/predict", json={"text": "x"}, timeout=30).status_code
    except httpx2.TransportError:
        return 0


class Load:
    """Clients that ask one request after the other, each over a connection of its own."""

    def __init__(self, made: Service, clients: int = 8) -> None:
        self._made = made
        self._is_over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        while not self._is_over.is_set():
            self.statuses[predict(self._made)] += 1

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def metric(made: Service, name: str, **labels: str) -> float:
    text = httpx2.get(f"{made.url}/metrics", timeout=10).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def answered(made: Service) -> float:
    return metric(made, "http_requests_total", handler="/predict", status="200")


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_all_answer_and_the_metrics_are_the_sum(tmp_path: Path) -> None:
    with front_ends(tmp_path, 3) as made:
        assert len(children(made)) == 3
        before = {pid: processor_ticks(pid) for pid in children(made)}
        assert [predict(made) for _ in range(300)] == [200] * 300
        assert answered(made) == 300
        assert metric(made, "mlapi_front_ends") == 3
        used = [processor_ticks(pid) - before[pid] for pid in children(made)]
        print(f"ticks of the processor by front end: {used}")
        assert min(used) > max(used) / 4  # of 100 requests each, give or take ten
        assert made.stop() == 0
        assert not made.log.count("Traceback")
        # The one file of SQLite took the rows of all.
        rows = sqlite3.connect(tmp_path / "data" / "ml-api.sqlite3")
        assert rows.execute("SELECT count(*) FROM predictions").fetchone() == (300,)
        rows.close()


def test_one_that_is_killed_is_replaced_while_the_others_go_on(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2, probe_port=0) as made:
        counted = 0.0
        with Load(made) as load:
            until(lambda: load.statuses[200] > 100, made.log)
            counted = answered(made)
            killed = children(made)[0]
            os.kill(killed, signal.SIGKILL)
            until(lambda: len(children(made)) == 2 and killed not in children(made), made.log)
            after = answered(made)
            so_far = load.statuses[200]
            until(lambda: load.statuses[200] > so_far + 100, made.log)
            until(lambda: not degraded(made), made.log)
        print(f"answers: {dict(load.statuses)}")
        assert after >= counted  # Prometheus would take less for a restart
        # Its open connections are cut, each client had one. What came before its death was noticed
        # waits for its successor.
        assert set(load.statuses) <= {200, 0}
        assert load.statuses[0] <= 8
        assert metric(made, "mlapi_front_end_restarts_total") == 1
        line = next(json.loads(x) for x in made.log.splitlines() if '"front_end_ended"' in x)
        assert line["status"] == -signal.SIGKILL
        assert made.stop() == 0


def test_the_end_drops_no_request(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2, SLOW) as made:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(predict(made))) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        until(lambda: metric(made, "http_requests_inprogress", handler="/predict") == 12, made.log)
        pids = children(made)
        assert made.stop() == 0
        for thread in threads:
            thread.join()
        assert statuses == [200] * 12
        assert not any(map(is_alive, pids))


def test_signals_to_all_processes_at_once_hurry_nobody(tmp_path: Path) -> None:
    """As systemd sends them, and a terminal."""
    with front_ends(tmp_path, 2, SLOW.replace("1_000", "2_500")) as made:
        statuses: list[int] = []
        thread = threading.Thread(target=lambda: statuses.append(predict(made)))
        thread.start()
        until(lambda: metric(made, "http_requests_inprogress", handler="/predict") == 1, made.log)
        for pid in [*processes(made), made.process.pid]:
            os.kill(pid, signal.SIGTERM)
        assert made.process.wait(STOP_TIMEOUT_S) == 0
        thread.join()
        assert statuses == [200]


def test_a_second_signal_hurries_all(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2, drain_delay_s=60, shutdown_budget_s=60) as made:
        made.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            made.process.wait(1)
        began_s = time.monotonic()
        made.process.send_signal(signal.SIGTERM)
        assert made.process.wait(STOP_TIMEOUT_S) == 0
        assert time.monotonic() - began_s < 6


def test_none_outlives_the_first_process(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2) as made:
        pids = list(processes(made))
        assert len(pids) == 3  # with that of the models
        made.process.kill()
        made.process.wait(STOP_TIMEOUT_S)
        until(lambda: not any(map(is_alive, pids)), made.log)


def test_one_that_is_told_to_end_is_replaced_and_drops_nothing(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2) as made:
        with Load(made) as load:
            until(lambda: load.statuses[200] > 50, made.log)
            told = children(made)[1]
            os.kill(told, signal.SIGTERM)
            until(lambda: len(children(made)) == 2 and told not in children(made), made.log)
            until(lambda: not degraded(made), made.log)
        assert set(load.statuses) == {200}
        assert made.stop() == 0


def test_a_stuck_one_makes_health_fail_and_gets_no_new_connections(tmp_path: Path) -> None:
    with front_ends(tmp_path, 2, health_max_lag_ms=4_000) as made:
        stuck = children(made)[0]
        os.kill(stuck, signal.SIGSTOP)
        try:
            until(lambda: "front_ends:1" in degraded_of_others(made), made.log)
            until(lambda: httpx2.get(f"{made.url}/health").status_code == 503, made.log)
            problem = httpx2.get(f"{made.url}/health").json()
            assert problem["checks"][0].startswith("front_end 1: silent for")
            assert [predict(made) for _ in range(20)] == [200] * 20
        finally:
            os.kill(stuck, signal.SIGCONT)
        until(lambda: httpx2.get(f"{made.url}/health").status_code == 200, made.log)
        assert made.stop() == 0


def degraded_of_others(made: Service) -> list[str]:
    """Ask until one answers that isn't stuck."""
    while True:
        try:
            return list(httpx2.get(f"{made.url}/ready", timeout=0.5).json()["degraded"])
        except httpx2.TransportError:
            continue


def test_wrong_settings_are_said_once(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(FAKE.replace('"fake"', '"nonsense"', 1))
    ended = run(tmp_path, "serve", "--port", "0", front_ends=3, models_file="models.toml")
    assert ended.returncode == 1
    assert ended.stderr.count("ml-api: error") == 1


def test_a_model_that_cant_be_loaded_is_said_once_and_ends_the_service(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text(
        FAKE.replace('engine = "fake"', 'engine = "openvino"\nsource = "file:nothing"').replace(
            'fake = { fail_on = "poison", oom_over = 4 }', ""
        )
    )
    ended = run(tmp_path, "serve", "--port", "0", front_ends=3, models_file="models.toml")
    assert ended.returncode == 1
    assert ended.stderr.count("ml-api: error") == 1
    assert ended.stderr.splitlines()[-1].startswith("ml-api: error")


def test_an_address_in_use_is_said_once(tmp_path: Path) -> None:
    with front_ends(tmp_path) as made:
        other = tmp_path / "other"
        other.mkdir()
        ended = run(other, "serve", "--port", str(made.port), front_ends=2)
        assert ended.returncode == 1
        assert ended.stderr.count("ml-api: error") == 1
        assert "is in use" in ended.stderr


def test_a_signal_during_the_start_ends_it_well(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [APP, "serve", "--port", "0", "--front-ends", "2"],
        env=environment(tmp_path, models_file=tmp_path / "models.toml"),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    (tmp_path / "models.toml").write_text(FAKE)
    until(lambda: has_child(process.pid), "a child")
    process.send_signal(signal.SIGTERM)
    assert process.wait(STOP_TIMEOUT_S) == 0


def has_child(pid: int) -> bool:
    return bool(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_all_share_one_valkey_and_one_worker_and_count_limits_together(tmp_path: Path) -> None:
    with front_ends(
        tmp_path, 2, jobs="on", default_limit="10/minute", limiter_budget_ms=2_000
    ) as made:
        commands = processes(made).values()
        assert sum("valkey-server" in command for command in commands) == 1
        assert len(children(made)) == 2
        until(lambda: worker_count(made) == 1, made.log)
        statuses = Counter(predict(made) for _ in range(30))
        assert statuses == {200: 10, 429: 20}
        assert made.stop() == 0


def worker_count(made: Service) -> int:
    return sum("worker" in command for command in processes(made).values())
