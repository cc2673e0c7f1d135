"""The server around the app, in this process: start line, signals, exit status."""

import asyncio
import signal
from pathlib import Path

import httpx2
import pytest
from serving import FAKE, make_settings

from app.errors import EngineError
from app.server import Server, make_server, serve


async def until_started(server: Server) -> str:
    while not server.started:
        await asyncio.sleep(0)
    port = server.servers[0].sockets[0].getsockname()[1]
    return f"http://127.0.0.1:{port}"


async def test_it_says_where_to_look_and_ends_with_status_0_on_sigterm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_server(make_settings(tmp_path, port=0))
    served = asyncio.create_task(server.serve())
    url = await until_started(server)
    async with httpx2.AsyncClient(base_url=url) as client:
        answer = await client.get("/health")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"ml-api: {url} ")
    assert server.runtime is not None
    signal.raise_signal(signal.SIGTERM)
    assert server.runtime().is_draining
    await served
    assert server.failure is None


async def test_the_signals_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    server = make_server(make_settings(tmp_path, port=0))
    served = asyncio.create_task(server.serve())
    await until_started(server)
    assert signal.getsignal(signal.SIGTERM) == server.handle_exit
    server.should_exit = True
    await served
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_required_model_that_fails_is_raised_when_the_server_has_stopped(tmp_path: Path) -> None:
    models = FAKE.replace("fail_on", "fail_load = true, fail_on")
    with pytest.raises(EngineError, match="model 'dummy'"):
        serve(make_settings(tmp_path, models, port=0))


async def test_an_ipv6_address_is_shown_as_urls_have_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = make_server(make_settings(tmp_path, host="::1", port=0))
    served = asyncio.create_task(server.serve())
    await until_started(server)
    assert "http://[::1]:" in capsys.readouterr().out
    server.should_exit = True
    await served
