"""Places are given back, however a request ends."""

import asyncio
import random
import socket
import struct
from pathlib import Path

import pytest
from test_gated import BODY, GET, HEALTH, JSON, PREDICT, Client, Running, running

from app.core.request_kinds import RequestKind

pytestmark = pytest.mark.core

COUNT, AT_ONCE = 2_000, 100
KEY = b"X-API-Key: " + b"a" * 16 + b"\r\n"
LENGTH = b"Content-Length: 12"
CHUNKED = PREDICT.replace(LENGTH, b"Transfer-Encoding: chunked").replace(
    BODY, b"c\r\n" + BODY + b"\r\n0\r\n\r\n"
)
KINDS = [
    PREDICT,
    PREDICT * 3,
    HEALTH + PREDICT + HEALTH,
    CHUNKED,
    PREDICT.replace(JSON, JSON + b"X-Request-Timeout-Ms: 1\r\n"),
    PREDICT.replace(JSON, JSON + b"Expect: 100-continue\r\n"),
    PREDICT.replace(JSON, JSON + KEY),
    PREDICT.replace(BODY, b"not JSON....")[: -len(BODY)] + b"x" * 12,
    PREDICT.replace(LENGTH, b"Content-Length: 100000") + b" " * 99_988,
    PREDICT.replace(LENGTH, b"Content-Length: 99999999") + b" " * 500,
    PREDICT.replace(b"POST", b"HEAD"),
    PREDICT.replace(b"/predict", b"/v1/embeddings"),
    PREDICT.replace(b"/predict", b"/chat/stream"),
    GET % b"/models",
    GET % b"/nowhere",
    HEALTH,
    PREDICT + b"not HTTP\r\n\r\n",
    PREDICT.replace(b"HTTP/1.1", b"HTTP/1.0"),
]
# What a client does after it has sent something: on close the kernel resets the connection.
RESETS = struct.pack("ii", 1, 0)


async def send(service: Running, chance: random.Random) -> Client:
    sent = chance.choice(KINDS)
    if chance.random() < 0.5:
        sent = sent[: chance.randrange(len(sent))]
    client = await service.sends(sent[: len(sent) // 2])
    if chance.random() < 0.5:
        await asyncio.sleep(0)
    client.writer.write(sent[len(sent) // 2 :])
    return client


async def leave(client: Client, chance: random.Random) -> None:
    for _ in range(chance.randrange(20)):
        await asyncio.sleep(0)
    if chance.random() < 0.3:
        connection: socket.socket = client.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
    client.writer.close()


async def until_nothing_is_counted(service: Running) -> None:
    gate, overload = service.server.gate, service.server.overload
    assert overload is not None
    async with asyncio.timeout(20):
        while (
            any(gate.in_flight.values())
            or gate.arriving
            or overload.starting.waiting
            or overload.starting.going_on
            or service.server.server_state.tasks
            or service.server.server_state.connections
        ):
            await asyncio.sleep(0)


async def test_of_requests_that_end_at_random_points_no_place_stays_taken(tmp_path: Path) -> None:
    chance = random.Random(15)  # noqa: S311  # the same each time
    async with running(
        tmp_path, max_in_flight=40, admin_key="a" * 16, request_timeout_ms=500
    ) as service:
        service.server.gate.rate.per_second = 10.0  # so that no more than 32 begin
        most_waiting = most = 0
        for _ in range(COUNT // AT_ONCE):
            clients = [await service.sends(PREDICT) for _ in range(AT_ONCE // 2)]
            clients += [await send(service, chance) for _ in range(AT_ONCE // 2)]
            overload = service.server.overload
            assert overload is not None
            most_waiting = max(most_waiting, overload.starting.waiting)
            most = max(most, service.in_flight)
            if chance.random() < 0.5:
                service.engine.gate.set()
                await asyncio.sleep(0)
                service.engine.gate.clear()
            async with asyncio.TaskGroup() as leaving:
                for client in clients:
                    leaving.create_task(leave(client, chance))
        service.engine.gate.set()
        await until_nothing_is_counted(service)
        assert most >= 32, "or the test shows nothing"
        assert most_waiting, "or the test shows nothing"
        # Its queue has learnt from calls that were held up; each refusal makes it doubt that.
        async with asyncio.timeout(20):
            while (await (await service.sends(PREDICT)).answer())[0] != 200:
                pass


async def ask(client: Client, sent: bytes) -> tuple[int, bytes]:
    client.writer.write(sent)
    return await client.answer()


async def test_while_requests_are_refused_all_else_is_answered_as_before(tmp_path: Path) -> None:
    async with running(
        tmp_path, max_in_flight=1, auth="required", admin_key="a" * 16, max_body_bytes=1_024
    ) as service:
        full = await service.sends(PREDICT.replace(JSON, JSON + KEY))
        await service.until(1)
        client = await service.sends(HEALTH)
        assert (await client.answer())[0] == 200
        status, head = await ask(client, PREDICT.replace(b"/predict", b"/v1/embeddings"))
        assert (status, b"content-type: application/json\r\n" in head) == (503, True)
        status, head = await ask(client, PREDICT)
        assert (status, b"content-type: application/problem+json\r\n" in head) == (503, True)
        assert (await ask(client, GET % b"/nowhere"))[0] == 404
        assert (await ask(client, GET % b"/models"))[0] == 401
        large = (GET % b"/models").replace(b"Host", KEY + b"Content-Length: 2000\r\nHost")
        assert (await ask(client, large + b"x" * 2_000))[0] == 200  # it reads no body
        service.engine.gate.set()
        assert (await full.answer())[0] == 200
        assert (await ask(client, PREDICT))[0] == 401
        too_large = PREDICT.replace(JSON, JSON + KEY).replace(LENGTH, b"Content-Length: 2000")
        assert (await ask(client, too_large + b"x" * 1_988))[0] == 413
        for kind in RequestKind:
            assert service.server.gate.in_flight[kind] == 0
