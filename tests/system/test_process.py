"""The service as a real process: start, signals, load, and clients that misbehave."""

import http.client
import json
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from converted import CONVERTED
from process import APP, Service, environment, service
from serving import FAKE

pytestmark = pytest.mark.system

SLOW = FAKE.replace("fail_on", "delay_ms = 700, fail_on")
READY_WITHIN_S = 10
HEALTH_P99_S = 0.05


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def exchange(url: str, data: bytes, timeout_s: float = 20) -> bytes:
    """Send bytes as they are and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port_of(url)), timeout=timeout_s) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    return answer


@pytest.mark.alone
def test_a_second_start_with_the_same_data_is_ready_within_ten_seconds(tmp_path: Path) -> None:
    for _ in range(2):
        started = time.monotonic()
        with service(tmp_path, model_cache_dir=CONVERTED) as running:
            running.wait_ready()
            seconds = time.monotonic() - started
            answer = httpx2.post(f"{running.url}/predict", json={"text": "I love it!"})
            assert answer.json()["label"] == "POSITIVE"
            assert running.stop() == 0
    print(f"second start: ready after {seconds:.1f} s")
    assert seconds <= READY_WITHIN_S


@pytest.mark.alone
def test_health_answers_within_50_ms_while_32_connections_predict(tmp_path: Path) -> None:
    with service(tmp_path, log_level="warning", model_cache_dir=CONVERTED) as running:
        running.wait_ready()
        load = subprocess.Popen(
            [
                sys.executable,
                Path(__file__).parent / "load.py",
                str(port_of(running.url)),
                "32",
                "10",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        times = []
        connection = http.client.HTTPConnection("127.0.0.1", port_of(running.url), timeout=10)
        while load.poll() is None:
            started = time.perf_counter()
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            times.append(time.perf_counter() - started)
            assert answer.status == 200
            time.sleep(0.01)  # a hundred questions a second
        assert load.stdout is not None
        connection.close()
        seen = json.loads(load.stdout.read())
        load.stdout.close()
    p99 = statistics.quantiles(times, n=100)[98]
    print(f"/health p99 {p99 * 1000:.1f} ms over {len(times)}; /predict {seen} in 10 s")
    assert set(seen) == {"200"}
    assert p99 <= HEALTH_P99_S


def test_probes_have_a_port_of_their_own_where_it_is_set(tmp_path: Path) -> None:
    with service(tmp_path, FAKE, probe_port=0) as running:
        running.wait_ready()
        line = next(x for x in running.log.splitlines() if "probes_listening" in x)
        probes = f"http://127.0.0.1:{json.loads(line)['port']}"
        assert probes != running.url
        asked = {path: httpx2.get(probes + path) for path in ("/health", "/ready", "/metrics", "/")}
        assert [answer.status_code for answer in asked.values()] == [200, 200, 200, 404]
        assert httpx2.post(f"{probes}/predict", json={"text": "x"}).status_code == 404
        assert httpx2.get(f"{running.url}/models").status_code == 200
        assert running.stop() == 0


def test_sigterm_lets_a_request_in_flight_finish_and_exits_with_0(tmp_path: Path) -> None:
    with service(tmp_path, SLOW) as running, ThreadPoolExecutor() as threads:
        running.wait_ready()
        asked = threads.submit(httpx2.post, f"{running.url}/predict", json={"text": "x"})
        while "http_requests_inprogress" not in (
            text := httpx2.get(f"{running.url}/metrics").text
        ) or ('{handler="/predict",method="POST"} 1.0' not in text):
            assert not asked.done()
        status = running.stop()
        assert asked.result().status_code == 200
        assert status == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_a_model_loads_ends_the_process_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    models = FAKE.replace("fail_on", "load_delay_ms = 30_000, fail_on")
    with service(tmp_path, models) as running:
        started = time.monotonic()
        assert running.stop(number) == 0
        assert time.monotonic() - started < 5


def test_after_kill_9_the_next_start_serves(tmp_path: Path) -> None:
    with service(tmp_path, FAKE) as running:
        running.wait_ready()
        assert running.stop(signal.SIGKILL) == -signal.SIGKILL
    with service(tmp_path, FAKE) as running:
        running.wait_ready()


def test_a_port_that_is_taken_is_said_without_a_traceback(tmp_path: Path) -> None:
    with service(tmp_path, FAKE) as running:
        ended = subprocess.run(
            [APP, "serve", "--port", str(port_of(running.url))],
            env=environment(tmp_path, models_file=tmp_path / "models.toml"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert "is in use: end what listens there" in line


def test_under_plain_uvicorn_a_required_model_that_fails_ends_the_process(tmp_path: Path) -> None:
    models = tmp_path / "models.toml"
    models.write_text(FAKE.replace("fail_on", "fail_load = true, fail_on"), encoding="utf-8")
    ended = subprocess.run(
        [*(sys.executable, "-m", "uvicorn", "--factory", "app.main:create_app", "--port", "0")],
        env=environment(tmp_path, models_file=models),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode != 0
    assert "startup_failed" in ended.stderr


def post(headers: str, body: bytes) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n"
    return head.encode() + body


AWKWARD: list[tuple[str, bytes, bytes]] = [
    (
        "ten megabytes of [ announced",
        post("Content-Length: 10485760\r\nConnection: close\r\n", b"[" * 10_485_760),
        b" 413 ",
    ),
    (
        "ten megabytes of [ unannounced",
        post(
            "Transfer-Encoding: chunked\r\nConnection: close\r\n",
            (b"10000\r\n" + b"[" * 0x10000 + b"\r\n") * 160 + b"0\r\n\r\n",
        ),
        b" 413 ",
    ),
    ("a body that ends too early", post("Content-Length: 50\r\n", b'{"text":'), b" 408 "),
    ("two lengths", post("Content-Length: 5\r\nContent-Length: 6\r\n", b"{}   "), b" 400 "),
    ("a length that is none", post("Content-Length: -1\r\n", b"{}"), b" 400 "),
    ("no HTTP at all", b"\x16\x03\x01\x02\x00\r\n\r\n", b" 400 "),
    ("headers without end", b"GET /health HTTP/1.1\r\nX: " + b"a" * 200_000, b" 431 "),
]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that waits a second for a body."""
    with service(tmp_path_factory.mktemp("impatient"), FAKE, request_timeout_ms=1000) as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize(("what", "data", "status"), AWKWARD, ids=[a[0] for a in AWKWARD])
def test_awkward_bytes_get_their_status_and_the_service_goes_on(
    impatient: Service, what: str, data: bytes, status: bytes
) -> None:
    first = exchange(impatient.url, data).partition(b"\r\n")[0]
    assert status in first, what
    assert httpx2.post(f"{impatient.url}/predict", json={"text": "x"}).status_code == 200


def test_clients_that_leave_at_any_moment_leave_nothing_behind(tmp_path: Path) -> None:
    with service(tmp_path, FAKE.replace("fail_on", "delay_ms = 20, fail_on")) as running:
        running.wait_ready()
        whole = post("Content-Length: 12\r\n", b'{"text":"x"}')
        for cut in range(1, len(whole) + 1, 3):
            with socket.create_connection(("127.0.0.1", port_of(running.url))) as connection:
                connection.sendall(whole[:cut])
        answer = httpx2.post(f"{running.url}/predict", json={"text": "x"}, timeout=30)
        assert answer.status_code == 200
        log = running.wait_logged(answer.headers["x-request-id"])  # the last of them
        assert "unhandled_error" not in log
        assert "Traceback" not in log


def test_make_help_lists_every_target() -> None:
    root = Path(__file__).parents[2]
    shown = subprocess.run(
        ["make", "help"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    phony: Any = next(
        line for line in (root / "Makefile").read_text().splitlines() if line.startswith(".PHONY")
    )
    for target in phony.split()[1:]:
        assert f"make {target} " in shown
