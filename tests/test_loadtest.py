"""The load client against small servers on loopback: it counts what came, and always ends."""

import asyncio
import json
import math
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import run
from storm_server import in_a_thread

from app.errors import StartupError
from app.loadtest.bench import Load, as_dict, measure, rows, summarise
from app.loadtest.closed_loop import closed_loop
from app.loadtest.connection import Target, make_target
from app.loadtest.open_loop import arrivals, open_loop
from app.loadtest.report import Answer, Report, percentile
from app.loadtest.texts import TEXTS, read_texts

Reply = Callable[[int, bytes], tuple[float, bytes | None]]  # number, body → delay in s, answer
OPENSSL = shutil.which("openssl")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FULL = b"HTTP/1.1 503 Full\r\nRetry-After: 1\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers each request as `reply` says; None hangs up. Runs in a thread of its own."""

    def __init__(self, reply: Reply, tls: ssl.SSLContext | None) -> None:
        self._reply = reply
        self._tls = tls
        self.count = 0
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.heads.append(head)
                self.bodies.append(body)
                self.count += 1
                delay_s, answer = self._reply(self.count - 1, body)
                await asyncio.sleep(delay_s)
                if answer is None:
                    break
                # In two writes, as a server may: the client has to put them together.
                writer.write(answer[:20])
                await writer.drain()
                writer.write(answer[20:])
                if answer is LAST:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def run(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()


@contextmanager
def server(reply: Reply, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    made = Server(reply, tls)
    with in_a_thread(made.run):
        yield made


def target(port: int, texts: tuple[str, ...] = ("x",)) -> Target:
    return make_target(f"http://127.0.0.1:{port}/predict", texts)


def always(answer: bytes | None, delay_s: float = 0.0) -> Reply:
    return lambda _number, _body: (delay_s, answer)


def test_a_request_is_whole_and_in_turn() -> None:
    with server(always(OK)) as running:
        report = closed_loop(
            target(running.port, ("one", "é two")), connections=1, seconds=5, max_requests=3
        )
    assert running.bodies == [b'{"text": "one"}', b'{"text": "\\u00e9 two"}', b'{"text": "one"}']
    assert [answer.number for answer in report.answers] == [0, 1, 2]
    assert running.connections == 1


def test_a_closed_loop_has_as_many_requests_in_flight_as_connections() -> None:
    with server(always(OK, 0.05)) as running:
        report = closed_loop(target(running.port), connections=4, seconds=1)
    assert report.outcomes.keys() == {"200"}
    assert running.connections == 4
    assert 40 <= report.per_second <= 80  # 4 clients, an answer each 50 ms and a bit
    assert 50 <= report.latency_ms(0.5) <= 150
    assert 0 < report.cpu_share < 1


def test_each_status_is_counted_and_only_200_is_good() -> None:
    with server(lambda number, _: (0, FULL if number % 4 else OK)) as running:
        report = closed_loop(target(running.port), connections=2, seconds=5, max_requests=40)
    assert report.outcomes == {"200": 10, "503": 30}
    assert len(report.good) == 10
    assert report.per_second == pytest.approx(10 / report.seconds)
    assert report.seconds < 5


def test_answers_are_kept_when_they_are_asked_for() -> None:
    with server(always(FULL)) as running:
        kept = closed_loop(
            target(running.port), connections=1, seconds=5, max_requests=1, keep_answers=True
        )
        dropped = closed_loop(target(running.port), connections=1, seconds=5, max_requests=1)
    assert kept.answers[0].raw == FULL
    assert dropped.answers[0].raw == b""


def test_chunked_answers_and_closing_servers_are_no_failures() -> None:
    for answer, connections in ((CHUNKED, 1), (LAST, 6)):
        with server(always(answer)) as running:
            report = closed_loop(target(running.port), connections=1, seconds=5, max_requests=6)
        assert report.outcomes == {"200": 6}
        assert running.connections == connections


def test_a_server_that_hangs_up_is_counted_and_asked_again() -> None:
    with server(lambda number, _: (0, None if number == 1 else OK)) as running:
        report = closed_loop(target(running.port), connections=1, seconds=5, max_requests=4)
    assert report.outcomes == {"200": 3, "closed": 1}


def test_a_server_that_is_not_there_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    started = time.monotonic()
    closed = closed_loop(target(port), connections=2, seconds=0.3)
    report = open_loop(target(port), rate=50, seconds=0.3, timeout_s=lambda _: 1.0)
    assert time.monotonic() - started < 3
    assert closed.outcomes.keys() == {"unconnected"}
    assert len(closed.answers) < 30  # it pauses between two tries
    assert report.outcomes.keys() == {"unconnected"}
    assert math.isnan(closed.latency_ms(0.5))


def test_an_open_loop_keeps_its_rate_when_answers_are_slow() -> None:
    with server(always(OK, 0.3)) as running:
        report = open_loop(target(running.port), rate=200, seconds=1, timeout_s=lambda _: 5.0)
    due = arrivals(200, 1)
    assert len(report.answers) == len(due) == running.count
    assert report.outcomes.keys() == {"200"}
    assert report.per_second == len(due)  # those that end after the second count too
    assert 300 <= report.latency_ms(0.5) <= 500
    assert running.connections <= len(due)


def test_a_client_leaves_at_its_timeout() -> None:
    with server(always(OK, 0.4)) as running:
        report = open_loop(
            target(running.port),
            rate=100,
            seconds=0.5,
            timeout_s=lambda number: 0.02 if number % 2 else 5.0,
        )
    by_end = {a.number: a for a in report.answers}
    assert {a.outcome for n, a in by_end.items() if n % 2 == 0} == {"200"}
    assert {a.outcome for n, a in by_end.items() if n % 2} == {"timeout"}
    left = [a.latency_s for a in report.answers if a.outcome == "timeout"]
    assert min(left) >= 0.02
    assert max(left) < 0.3


def test_arrivals_have_the_rate_and_are_the_same_each_time() -> None:
    due = arrivals(1000, 10)
    assert due == arrivals(1000, 10) == sorted(due)
    assert 9_700 <= len(due) <= 10_300
    assert due[-1] < 10


def test_percentiles_are_of_the_values_themselves() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([7.0], 0.01) == 7
    assert math.isnan(percentile([], 0.5))


def test_figures_are_medians_over_rounds() -> None:
    reports = []
    for latency_s in (0.1, 0.3, 0.2):
        report = Report(seconds=1, counts_late=False)
        report.answers += [
            Answer(n, "200", latency_s, 0.5, b"") for n in range(int(latency_s * 100))
        ]
        report.answers.append(Answer(99, "503", 0.0, 0.5, b""))
        report.answers.append(Answer(100, "200", latency_s, 1.5, b""))  # too late to count
        reports.append(report)
    figures = summarise(reports)
    assert figures.per_second == 20
    assert figures.p50_ms == pytest.approx(200)
    assert figures.others == {"503": 3}


def test_a_measurement_is_a_line_for_each_load() -> None:
    with server(always(OK, 0.01)) as running:
        measured = measure(target(running.port), connections=(1, 4), seconds=0.3, rounds=2)
        lines = list(rows(measured))
    assert len(lines) == 4
    assert "req/s" in lines[0]
    assert lines[1].startswith("1 connections")
    assert lines[3].startswith("open, ")


def test_what_can_t_be_measured_is_said(tmp_path: Path) -> None:
    with server(always(FULL)) as running, pytest.raises(StartupError, match="seen: 503"):
        next(measure(target(running.port), connections=(1,), seconds=1, rounds=1))
    for arguments, says in {
        ("http://127.0.0.1:1/predict",): "nobody listens at that address",
        ("127.0.0.1/predict",): "is no address such as http://127.0.0.1:8000/predict",
        ("http://127.0.0.1:1/predict", "--key", "schlüssel"): "has characters that no key has",
        ("http://127.0.0.1:1/", "--connections", "1,x"): "--connections: numbers from 1 to",
        ("http://127.0.0.1:1/", "--texts", "/nowhere"): "/nowhere: can't be read",
    }.items():
        ended = run(tmp_path, "bench", *arguments)
        assert ended.returncode == 1
        assert says in ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_bench_is_json_for_scripts(tmp_path: Path) -> None:
    with server(always(OK, 0.01)) as running:
        url = f"http://127.0.0.1:{running.port}/predict"
        short = ("--connections", "1,2", "--seconds", "0.1", "--rounds", "1")
        ended = run(tmp_path, "bench", url, *short, "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    one, two, overload = map(json.loads, ended.stdout.splitlines())
    assert [load["connections"] for load in (one, two, overload)] == [1, 2, None]
    assert overload["rate"] == pytest.approx(2 * max(one["per_second"], two["per_second"]))
    assert one["p99_ms"] >= one["p50_ms"] >= 10
    assert one["others"] == {}


def test_a_latency_without_answers_is_null() -> None:
    document = as_dict(Load(connections=1), summarise([Report(seconds=1, counts_late=False)]))
    assert document["p50_ms"] is document["p99_ms"] is None
    assert document["per_second"] == 0


@pytest.mark.parametrize(("status", "says"), [("401", "wants a key"), ("403", "may not use")])
def test_a_key_that_is_missing_or_may_not_is_named(status: str, says: str) -> None:
    refusal = f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()
    with (
        server(always(refusal, 0.01)) as running,
        pytest.raises(StartupError, match=f"{says}"),
    ):
        next(measure(target(running.port), connections=(1,), seconds=1, rounds=1))


def test_bench_sends_the_key_of_the_environment(tmp_path: Path) -> None:
    with server(always(OK, 0.01)) as running:
        url = f"http://127.0.0.1:{running.port}/predict"
        short = ("--connections", "1", "--seconds", "0.1", "--rounds", "1")
        ended = run(tmp_path, "bench", url, *short, app_key="mlk_1_secret")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(b"\r\nAuthorization: Bearer mlk_1_secret\r\n" in head for head in running.heads)
    assert "secret" not in ended.stdout


@pytest.mark.skipif(OPENSSL is None, reason="there is no openssl to make a certificate with")
def test_tls_is_spoken_and_the_certificate_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with server(always(OK, 0.01), tls=certificate(tmp_path)) as running:
        url = f"https://localhost:{running.port}/predict"
        unknown = closed_loop(make_target(url, ["x"]), connections=1, seconds=5, max_requests=1)
        with pytest.raises(StartupError, match="certificate isn't valid"):
            next(measure(make_target(url, ["x"]), connections=(1,), seconds=1, rounds=1))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        trusted = make_target(url, ["x"])
        closed = closed_loop(trusted, connections=1, seconds=5, max_requests=2)
        report = open_loop(trusted, rate=50, seconds=0.3, timeout_s=lambda _: 5.0)
    assert unknown.outcomes == {"untrusted": 1}
    assert closed.outcomes == {"200": 2}
    assert report.outcomes.keys() == {"200"}


def certificate(folder: Path) -> ssl.SSLContext:
    """Make a server that is localhost, and believed by who trusts certificate.pem."""
    assert OPENSSL is not None
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *(OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", key),
            *("-out", certificate, "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_texts_are_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "texts"
    file.write_text("one\n\n  two \n", encoding="utf-8")
    assert read_texts(file) == ["one", "two"]
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(StartupError, match="has no text"):
        read_texts(file)
    assert read_texts(None) == list(TEXTS)
