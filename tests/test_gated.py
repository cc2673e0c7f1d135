"""Connections of a service that has no place for their requests."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from listening import connect_small
from serving import FAKE, make_settings, serve_instead
from test_inference import GatedClassifier

from app.core.request_kinds import RequestKind
from app.runtime.runtime import Runtime
from app.server.gated import SKIPPED_BYTES, GatedHttpProtocol
from app.server.listening import listening
from app.server.serve import make_server
from app.server.server import Server

pytestmark = pytest.mark.core

BODY = b'{"text":"x"}'
JSON = b"Host: x\r\nContent-Type: application/json\r\n"
PREDICT = b"POST /predict HTTP/1.1\r\n" + JSON + b"Content-Length: 12\r\n\r\n" + BODY
GET = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n"
HEALTH = GET % b"/health"
# The engine is held for as long as a slow machine takes: by that the queue reckons what comes next.
PATIENT: dict[str, Any] = {"request_timeout_ms": 600_000}


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the head of the next answer; its body is read."""
        head = (await self.head()).lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head.split()[1]), head

    async def byte(self) -> bytes:
        return await self._reader.readexactly(1)

    async def rest(self) -> bytes:
        async with asyncio.timeout(10):
            return await self._reader.read()


@dataclass
class Running:
    """A service with an engine that a test holds."""

    server: Server
    runtime: Runtime
    engine: GatedClassifier
    port: int
    probe_port: int
    clients: list[Client] = field(default_factory=list)

    async def sends(self, sent: bytes) -> Client:
        return await self._connect(self.port, sent)

    async def asks_probes(self, sent: bytes) -> Client:
        return await self._connect(self.probe_port, sent)

    async def _connect(self, port: int, sent: bytes) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", port))
        client.writer.write(sent)
        self.clients.append(client)
        return client

    @property
    def in_flight(self) -> int:
        return self.server.gate.in_flight[RequestKind.INFERENCE]

    async def until(self, in_flight: int) -> None:
        async with asyncio.timeout(10):
            while self.in_flight != in_flight:
                await asyncio.sleep(0)

    def count(self, name: str, **labels: str) -> float:
        return self.runtime.metrics.registry.get_sample_value(f"mlapi_{name}_total", labels) or 0


@asynccontextmanager
async def running(tmp_path: Path, **settings: Any) -> AsyncIterator[Running]:
    server = make_server(make_settings(tmp_path, FAKE, **settings))
    with listening("127.0.0.1", 0) as sockets, listening("127.0.0.1", 0) as probes:
        server.probe_sockets = probes
        served = asyncio.create_task(server.serve(sockets))
        while not server.started:
            await asyncio.sleep(0)
        runtime = server.runtime()
        assert runtime is not None
        await runtime.loaded.wait()
        await runtime.stored.wait()
        engine = GatedClassifier()
        serve_instead(server.config.app._app, engine)  # type: ignore[union-attr]  # LastAnswers
        ports = [one[0].getsockname()[1] for one in (sockets, probes)]
        service = Running(server, runtime, engine, *ports)
        try:
            yield service
        finally:
            engine.gate.set()
            for client in service.clients:
                client.writer.close()
            server.should_exit = True
            await served


async def test_what_has_no_place_is_refused_and_its_connection_is_used_again(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        first = await service.sends(PREDICT)
        await service.until(1)
        # The first of a connection would be refused when it is accepted.
        second = await service.sends(HEALTH)
        assert (await second.answer())[0] == 200
        for _ in range(3):
            second.writer.write(PREDICT)
            status, head = await second.answer()
            assert status == 503
            assert b"retry-after: 1\r\n" in head
            assert b"connection: close" not in head
        assert service.count("front_refused", kind="inference", reason="full") == 3
        service.engine.gate.set()
        assert (await first.answer())[0] == 200
        second.writer.write(PREDICT)
        assert (await second.answer())[0] == 200
        assert service.in_flight == 0


async def test_while_inference_is_full_probes_streams_and_others_are_answered(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_in_flight=1, admin_key="a" * 16, auth="required") as service:
        key = b"X-API-Key: " + b"a" * 16 + b"\r\n"
        await service.sends(PREDICT.replace(JSON, JSON + key))
        await service.until(1)
        for path in (b"/health", b"/ready", b"/metrics", b"/models"):
            sent = (GET % path).replace(b"Host", key + b"Host")
            assert (await (await service.sends(sent)).answer())[0] == 200
        refused = await service.sends(PREDICT)
        assert (await refused.answer())[0] == 503
        await service.sends(PREDICT.replace(JSON, JSON + key))
        async with asyncio.timeout(10):
            while not service.server.gate.in_flight[RequestKind.ADMIN]:
                await asyncio.sleep(0)
        service.engine.gate.set()


async def test_ready_calls_it_degraded_and_is_503_only_where_the_settings_say_so(
    tmp_path: Path,
) -> None:
    for is_ready, status in ((True, 200), (False, 503)):
        async with running(tmp_path, max_in_flight=1, overloaded_is_ready=is_ready) as service:
            await service.sends(PREDICT)
            await service.until(1)
            assert (await (await service.sends(PREDICT)).answer())[0] == 503
            ready = await service.sends(GET % b"/ready")
            assert (await ready.answer())[0] == status
            assert service.runtime.readiness().degraded == ["overloaded"]
            assert (await (await service.sends(HEALTH)).answer())[0] == 200


@pytest.mark.parametrize(
    "sent",
    [
        PREDICT.replace(b"Host: x", b"Host: x\r\nConnection: close"),
        PREDICT.replace(b"Content-Length: 12", b"Transfer-Encoding: chunked"),
        PREDICT.replace(b"Content-Length: 12", b"Content-Length: %d" % (SKIPPED_BYTES + 1)),
        PREDICT.replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")[: -len(BODY)],
        PREDICT.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["close", "chunked", "large", "expect", "old"],
)
async def test_a_connection_that_can_t_be_used_again_ends_with_its_refusal(
    tmp_path: Path, sent: bytes
) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        client = await service.sends(HEALTH)
        assert (await client.answer())[0] == 200
        client.writer.write(sent + HEALTH)
        answer = await client.rest()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close\r\n" in answer


async def test_a_refused_connection_is_kept_for_as_long_as_an_answered_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GatedHttpProtocol, "header_timeout_s", 0.05)
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        client = await service.sends(HEALTH)
        assert (await client.answer())[0] == 200
        client.writer.write(PREDICT)
        assert (await client.answer())[0] == 503
        with pytest.raises(TimeoutError):  # a 408 would be taken for the next request's answer
            await asyncio.wait_for(client.byte(), 0.2)
        client.writer.write(PREDICT + HEALTH)
        assert [(await client.answer())[0] for _ in range(2)] == [503, 200]


CHANGING = re.compile(rb"[0-9a-f]{32}")


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Connection: keep-alive\r\n",
        b"Connection: close\r\n",
        b"X-Request-ID: mine\r\n",
        b"X-Request-Timeout-Ms: 5\r\n",
        b"X-API-Key: unknown\r\n",
        b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        b"Cookie:   a = b  \r\n",
    ],
)
async def test_what_comes_whole_is_refused_as_what_comes_in_parts(
    tmp_path: Path, header: bytes
) -> None:
    sent = PREDICT.replace(JSON, JSON + header)
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        answers = []
        for cut in (len(sent), 30):
            client = await service.sends(HEALTH)
            assert (await client.answer())[0] == 200
            client.writer.write(sent[:cut])
            await client.writer.drain()
            if cut < len(sent):
                await asyncio.sleep(0.05)
                client.writer.write(sent[cut:])
            status, head = await client.answer()
            assert status == 503
            answers.append(CHANGING.sub(b"", head))
            if b"connection: close" in head:
                assert await client.rest() == b""
            else:
                client.writer.write(HEALTH)
                assert (await client.answer())[0] == 200
        assert answers[0] == answers[1]
        assert (b"connection: close" in answers[0]) is (b": close" in header)


async def test_answers_come_in_the_order_of_requests_that_were_sent_together(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        full = await service.sends(PREDICT)
        await service.until(1)
        client = await service.sends(HEALTH + PREDICT + HEALTH)
        assert (await client.answer())[0] == 200
        service.engine.gate.set()
        assert [(await client.answer())[0] for _ in range(2)] == [200, 200]
        assert (await full.answer())[0] == 200
        assert service.in_flight == 0


async def test_refused_ones_that_were_sent_together_have_an_answer_each(tmp_path: Path) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        client = await service.sends(PREDICT * 3 + HEALTH)
        assert [(await client.answer())[0] for _ in range(4)] == [503, 503, 503, 200]


async def test_the_answer_to_head_has_no_body(tmp_path: Path) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        head = PREDICT.replace(b"POST", b"HEAD")
        client = await service.sends(HEALTH)
        assert (await client.answer())[0] == 200
        client.writer.write(head)
        assert b" 503 " in await client.head()
        client.writer.write(HEALTH)
        assert b" 200 " in await client.head()


async def test_a_slow_upload_takes_no_place_of_inference_until_it_is_complete(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        service.engine.gate.set()
        upload = await service.sends(PREDICT[:-1])
        async with asyncio.timeout(10):
            while not service.server.gate.arriving:
                await asyncio.sleep(0)
        other = await service.sends(PREDICT)
        assert (await other.answer())[0] == 200
        another = await service.sends(PREDICT[:-1])
        assert (await another.answer())[0] == 503
        assert service.count("front_refused", kind="inference", reason="arriving") == 1
        upload.writer.write(PREDICT[-1:])
        assert (await upload.answer())[0] == 200
        assert (service.server.gate.arriving, service.in_flight) == (0, 0)


async def test_the_body_of_a_refused_request_is_waited_for_without_a_second_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        client = await service.sends(HEALTH)
        assert (await client.answer())[0] == 200
        client.writer.write(PREDICT[:-4])
        assert (await client.answer())[0] == 503
        client.writer.write(PREDICT[-4:] + HEALTH)
        assert (await client.answer())[0] == 200
        monkeypatch.setattr(GatedHttpProtocol, "header_timeout_s", 0.05)
        client.writer.write(PREDICT[:-4])
        assert (await client.answer())[0] == 503
        assert await client.rest() == b""


async def test_only_as_many_begin_as_keep_the_engine_busy_and_all_are_answered(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, **PATIENT) as service:
        overload = service.server.overload
        assert overload is not None
        clients = [await service.sends(PREDICT) for _ in range(300)]
        await service.until(300)
        assert overload.starting.waiting >= 300 - overload.starting.limit > 0
        leaving = clients.pop()
        leaving.writer.close()
        await service.until(299)
        assert service.count("front_left") == 1
        service.engine.gate.set()
        assert {(await client.answer())[0] for client in clients} == {200}
        assert (service.in_flight, overload.starting.waiting) == (0, 0)


async def test_a_shutdown_answers_those_that_wait_for_their_turn(tmp_path: Path) -> None:
    async with running(tmp_path, **PATIENT) as service:
        overload = service.server.overload
        assert overload is not None
        clients = [await service.sends(PREDICT) for _ in range(200)]
        await service.until(200)
        service.server.should_exit = True
        async with asyncio.timeout(10):
            while overload.starting.waiting:
                await asyncio.sleep(0.001)
        service.engine.gate.set()
        assert {(await client.answer())[0] for client in clients} == {200}


async def test_the_deadline_of_a_request_runs_while_it_waits_for_its_turn(tmp_path: Path) -> None:
    async with running(tmp_path, **PATIENT) as service:
        overload = service.server.overload
        assert overload is not None
        clients = [await service.sends(PREDICT) for _ in range(150)]
        await service.until(150)
        timed = PREDICT.replace(JSON, JSON + b"X-Request-Timeout-Ms: 1\r\n")
        late = await service.sends(timed)
        behind = await service.sends(HEALTH + timed)
        assert (await behind.answer())[0] == 200
        for client in (late, behind):  # while the engine is stuck
            assert (await client.answer())[0] in {503, 504}
        assert overload.starting.waiting
        service.engine.gate.set()
        assert {(await client.answer())[0] for client in clients} == {200}


async def test_on_the_port_of_probes_nothing_else_is_found(tmp_path: Path) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        for path, status in ((b"/health", 200), (b"/ready", 200), (b"/metrics", 200)):
            client = await service.asks_probes(GET % path)
            assert (await client.answer())[0] == status
        for sent in (PREDICT, GET % b"/models", GET % b"/"):
            client = await service.asks_probes(sent + HEALTH)
            assert (await client.rest()).startswith(b"HTTP/1.1 404 ")


def send_without_end(port: int) -> None:
    with connect_small(port) as client:
        client.sendall(HEALTH)  # or the first one would be refused when it is accepted
        while not client.recv(65_536).endswith(b"}"):  # later ones aren't sent together with it
            pass
        while True:
            client.sendall(PREDICT * 100)


async def test_a_client_that_sends_and_never_reads_loses_its_connection(tmp_path: Path) -> None:
    async with running(tmp_path, max_in_flight=1) as service:
        await service.sends(PREDICT)
        await service.until(1)
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(send_without_end, service.port)
        assert service.in_flight == 1
