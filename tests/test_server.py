"""The server around the app, in this process: start line, signals, drain, exit status."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from serving import FAKE, make_settings

from app.errors import EngineError, StartupError
from app.runtime.runtime import Runtime
from app.server.drain import CLOSE_S, HURRY_S, LAST_LINE_S, OVERDUE_S, Drain
from app.server.listening import listening
from app.server.serve import make_server, run, serve
from app.server.server import Server

pytestmark = pytest.mark.core

TIMEOUT_S = 20.0
SLOW = FAKE.replace("fail_on", "delay_ms = 500, fail_on")
TEXT = {"text": "x"}


@asynccontextmanager
async def started(
    tmp_path: Path, models: str = FAKE, *, delay_s: float = 0.0, budget_s: float = 10.0
) -> AsyncIterator[tuple[Server, str]]:
    """Serve until the block is over, at least."""
    server = make_server(make_settings(tmp_path, models, port=0))
    server.drain.delay_s, server.drain.budget_s = delay_s, budget_s
    with listening("127.0.0.1", 0) as sockets:
        served = asyncio.create_task(server.serve(sockets))
        try:
            while not server.started:
                await asyncio.sleep(0)
            host, port = server.servers[0].sockets[0].getsockname()[:2]
            await runtime_of(server).loaded.wait()
            await runtime_of(server).stored.wait()
            yield server, f"http://{host}:{port}"
        finally:
            server.should_exit = True
            async with asyncio.timeout(TIMEOUT_S):
                await served


def runtime_of(server: Server) -> Runtime:
    runtime = server.runtime()
    assert runtime is not None
    return runtime


async def until_asked(server: Server, requests: int = 1) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while len(server.server_state.tasks) < requests:
            await asyncio.sleep(0)


async def until_closed(server: Server) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while server.drain.closed_s is None:
            await asyncio.sleep(0)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


REQUEST = b"GET /models HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_it_says_where_to_look_and_ends_on_sigterm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with started(tmp_path) as (server, url), httpx2.AsyncClient(base_url=url) as client:
        answer = await client.get("/ready")
        assert answer.status_code == 200
        assert "server" not in answer.headers
        printed = capsys.readouterr()
        assert printed.out == ""
        assert any(line.startswith(f"ml-api: {url} ") for line in printed.err.splitlines())
        signal.raise_signal(signal.SIGTERM)
        assert runtime_of(server).is_draining
        await until_closed(server)
    assert server.failure is None


async def test_the_signals_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with started(tmp_path) as (server, _):
        assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_required_model_that_fails_is_raised_when_the_server_has_stopped(tmp_path: Path) -> None:
    models = FAKE.replace("fail_on", "fail_load = true, fail_on")
    with pytest.raises(EngineError, match="model 'dummy'"):
        serve(make_settings(tmp_path, models, port=0))


async def test_an_ipv6_address_is_shown_as_urls_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_server(make_settings(tmp_path, port=0))
    with listening("::1", 0) as sockets:
        served = asyncio.create_task(server.serve(sockets))
        while not server.started:
            await asyncio.sleep(0)
        assert "http://[::1]:" in capsys.readouterr().err
        server.should_exit = True
        await served


def test_an_address_that_is_taken_is_one_sentence_before_anything_is_opened(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError) as refused:
            serve(make_settings(tmp_path, port=port, jobs="on"))
    assert str(refused.value) == (
        f"127.0.0.1:{port} is in use: end what listens there, or give --port"
    )
    assert not (tmp_path / "data").exists()


def test_a_port_of_probes_that_is_taken_is_one_sentence_too(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartupError, match=rf":{port} is in use: .+, or give PROBE_PORT$"):
            serve(make_settings(tmp_path, port=0, probe_port=port))
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("host", ["nope.invalid", "192.0.2.1", "..", "2001:db8::1"])
def test_an_address_that_is_not_this_machines_is_one_sentence(host: str) -> None:
    with pytest.raises(StartupError, match=r"can't be listened on \(.+\): give --host"):
        listening(host, 0).__enter__()


def test_of_two_services_that_start_at_once_one_is_refused_at_once() -> None:
    with listening("127.0.0.1", 0) as (first,):
        port = first.getsockname()[1]
        with pytest.raises(StartupError, match="in use"):
            listening("127.0.0.1", port).__enter__()
    with listening("127.0.0.1", port):
        pass


def test_all_addresses_of_a_name_are_listened_on() -> None:
    named = {found[4][0] for found in socket.getaddrinfo("localhost", 0)}
    with listening("localhost", 0) as sockets:
        assert {each.getsockname()[0] for each in sockets} == named
    assert all(each.fileno() == -1 for each in sockets)


def test_a_lifespan_that_fails_is_a_start_that_failed(tmp_path: Path) -> None:
    @asynccontextmanager
    async def fails(_: FastAPI) -> AsyncIterator[None]:
        raise OSError("no more threads")
        yield

    server = make_server(make_settings(tmp_path, port=0))
    server.config.app = FastAPI(lifespan=fails)
    with pytest.raises(StartupError, match="the log says why"):
        run(server)


async def test_while_it_drains_ready_says_503_and_new_connections_are_answered(
    tmp_path: Path,
) -> None:
    async with started(tmp_path, delay_s=TIMEOUT_S) as (server, url):
        signal.raise_signal(signal.SIGTERM)
        for path, status in (("/ready", 503), ("/health", 200), ("/models", 200)):
            async with httpx2.AsyncClient(base_url=url) as client:
                answer = await client.get(path)
            assert answer.status_code == status
            assert answer.headers["Connection"] == "close"
        assert server.drain.closed_s is None
        signal.raise_signal(signal.SIGTERM)


async def test_a_kept_connection_is_closed_with_its_next_answer(tmp_path: Path) -> None:
    async with started(tmp_path, delay_s=TIMEOUT_S) as (_, url):
        reader, writer = await connect(url)
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        assert b"connection: close" not in head
        signal.raise_signal(signal.SIGTERM)
        writer.write(REQUEST)
        rest = await reader.read()  # to the end of the connection
        assert rest.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in rest
        writer.close()
        signal.raise_signal(signal.SIGTERM)


async def test_after_the_delay_nobody_is_let_in_and_a_request_in_flight_is_answered(
    tmp_path: Path,
) -> None:
    async with (
        started(tmp_path, SLOW, delay_s=0.2) as (server, url),
        httpx2.AsyncClient(base_url=url) as client,
    ):
        request = asyncio.create_task(client.post("/predict", json=TEXT))
        await until_asked(server)
        signal.raise_signal(signal.SIGTERM)
        await until_closed(server)
        with pytest.raises(ConnectionRefusedError):
            await connect(url)
        assert not request.done()
        assert (await request).status_code == 200


async def test_who_stands_in_the_door_when_it_closes_is_answered(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, url):
        signal.raise_signal(signal.SIGTERM)
        reader, writer = await connect(url)
        await until_closed(server)
        writer.write(REQUEST)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


def open_socket(url: str) -> socket.socket:
    """Connect without a turn of the event loop, which serves this test too."""
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), TIMEOUT_S)


def read_to_end(sock: socket.socket) -> bytes:
    with sock:
        return b"".join(iter(lambda: sock.recv(65_536), b""))


def read_answer(sock: socket.socket) -> None:
    """Read an object of JSON."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += sock.recv(65_536)


async def test_who_waits_at_the_door_is_let_in_before_it_closes(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, url):
        waiting = [open_socket(url) for _ in range(3)]
        await server.closing.stop_listening(server.servers, server._acceptors)
        signal.raise_signal(signal.SIGTERM)
        for sock in waiting:
            sock.sendall(REQUEST)
            answer = await asyncio.to_thread(read_to_end, sock)
            assert answer.startswith(b"HTTP/1.1 200 ")


async def test_a_kept_connection_over_which_a_request_comes_is_not_closed(tmp_path: Path) -> None:
    async with started(tmp_path) as (server, url):
        idle, busy = open_socket(url), open_socket(url)
        for sock in (idle, busy):
            sock.sendall(REQUEST)
            await asyncio.to_thread(read_answer, sock)
        busy.sendall(REQUEST)
        signal.raise_signal(signal.SIGTERM)
        server.drain.closed_s = time.monotonic()
        server.closing.close_idle()
        assert await asyncio.to_thread(read_to_end, idle) == b""
        assert (await asyncio.to_thread(read_to_end, busy)).startswith(b"HTTP/1.1 200 ")


async def test_a_request_whose_time_is_over_gets_503(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        started(tmp_path, SLOW, budget_s=0.1) as (server, url),
        httpx2.AsyncClient(base_url=url) as client,
    ):
        request = asyncio.create_task(client.post("/predict", json=TEXT))
        await until_asked(server)
        signal.raise_signal(signal.SIGTERM)
        answer = await request
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    assert "shutting down" in answer.json()["detail"]
    assert errors_of(caplog) == []


def errors_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


async def test_a_signal_before_the_runtime_is_there_ends_the_server(tmp_path: Path) -> None:
    server = make_server(make_settings(tmp_path, port=0))
    served = asyncio.create_task(server.serve())
    await asyncio.sleep(0)
    assert server.runtime() is None
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(TIMEOUT_S):
        await served


class ShortDrain(Drain):
    """One of which nothing is expected in no time."""

    @property
    def longest_s(self) -> float:
        return 0.0 if self.hurried_s is not None else TIMEOUT_S


async def test_an_end_that_takes_longer_than_all_its_phases_is_cut_short(tmp_path: Path) -> None:
    overdue = threading.Event()
    server = make_server(make_settings(tmp_path, port=0), on_overdue=overdue.set)
    server.drain = ShortDrain(delay_s=0, budget_s=0)
    served = asyncio.create_task(server.serve())
    await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    assert not overdue.is_set()
    signal.raise_signal(signal.SIGTERM)
    assert await asyncio.to_thread(overdue.wait, TIMEOUT_S)
    await served


def test_a_process_that_is_cut_short_says_so() -> None:
    command = "from app.cli.main import leave_unfinished; leave_unfinished()"
    ended = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 70
    assert ended.stderr == "ml-api: error: the end took too long, and was cut short\n"


def test_who_was_never_ready_waits_for_nobody() -> None:
    drain = Drain(delay_s=15, budget_s=60)
    drain.begin(100.0, was_ready=False)
    assert not drain.is_accepting(100.0)


def test_a_drain_accepts_for_the_delay_and_answers_for_the_budget_after_it() -> None:
    drain = Drain(delay_s=15, budget_s=60)
    assert drain.is_accepting(99.0)
    drain.begin(100.0)
    assert drain.is_accepting(114.9)
    assert not drain.is_accepting(115.0)
    drain.closed_s = 115.2
    assert drain.is_answering(175.1)
    assert not drain.is_answering(175.2)
    assert drain.may_close(185.0, since_s=175.2)
    assert not drain.may_close(185.2, since_s=175.2)


def test_the_phases_of_a_drain_add_up_to_less_than_a_quarter_of_a_minute_more() -> None:
    drain = Drain(delay_s=15, budget_s=60)
    assert drain.longest_s == 15 + 60 + LAST_LINE_S + CLOSE_S + OVERDUE_S
    assert drain.longest_s < 15 + 60 + 15


@pytest.mark.parametrize("closed_s", [None, 103.0])
def test_a_hurried_drain_answers_for_one_more_second(closed_s: float | None) -> None:
    drain = Drain(delay_s=0 if closed_s else 15, budget_s=60)
    drain.begin(100.0)
    drain.closed_s = closed_s
    for now_s in (105.0, 120.0):  # the third signal gives no more time
        drain.begin(now_s)
    assert not drain.is_accepting(105.0)
    drain.closed_s = drain.closed_s or 105.1
    assert drain.is_answering(105.9)
    assert not drain.is_answering(105.0 + HURRY_S)
    assert drain.may_close(106.9, since_s=106.0)
    assert not drain.may_close(107.0, since_s=106.0)
