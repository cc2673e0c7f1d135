"""All bodies together are bounded, and one caller's can't take the room of others."""

import asyncio
from collections.abc import AsyncIterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from httpx2 import ASGITransport, AsyncClient
from serving import make_app, running, serving
from test_protocol import exchange, listening

from app.core.callers import Caller
from app.errors import SettingsError
from app.middleware.body_budget import SMALL_BYTES, BodyBudget, Reason
from app.middleware.body_limit import caller_of

MIB = 1_048_576


def budget(max_mib: int = 64, largest_mib: int = 16) -> tuple[BodyBudget, list[Reason]]:
    refused: list[Reason] = []
    made = BodyBudget(
        max_bytes=max_mib * MIB, largest_bytes=largest_mib * MIB, on_refused=refused.append
    )
    return made, refused


def test_bodies_of_one_caller_have_half_and_those_of_another_still_fit() -> None:
    made, refused = budget()
    assert [made.hold("a").grow(16 * MIB) for _ in range(3)] == [True, True, False]
    assert refused == [Reason.CALLER]
    assert made.hold("b").grow(16 * MIB)
    assert made.held == 48 * MIB


def test_large_bodies_leave_room_for_small_ones() -> None:
    made, refused = budget()
    for caller in "abc":
        assert made.hold(caller).grow(16 * MIB)
    assert not made.hold("d").grow(16 * MIB)
    assert refused == [Reason.ALL]
    assert made.hold("d").grow(SMALL_BYTES)
    assert made.hold("a").grow(SMALL_BYTES)


def test_small_bodies_of_one_caller_leave_room_for_others() -> None:
    made, refused = budget()
    fitting = sum(made.hold("a").grow(SMALL_BYTES) for _ in range(1000))
    assert fitting * SMALL_BYTES == 16 * MIB
    assert set(refused) == {Reason.CALLER}
    assert made.hold("b").grow(SMALL_BYTES)


def test_nothing_is_over_the_whole_bound() -> None:
    made, _ = budget()
    holds = [made.hold(caller) for caller in range(5000)]
    fitting = sum(hold.grow(SMALL_BYTES) for hold in holds)
    assert fitting * SMALL_BYTES == made.held == 64 * MIB
    assert not made.hold("late").grow(1)


def test_a_body_that_grows_large_counts_as_large_from_its_first_byte() -> None:
    made, _ = budget()
    for caller in "ab":
        hold = made.hold(caller)
        assert hold.grow(SMALL_BYTES)
        assert all(hold.grow(MIB // 16) for _ in range(15 * 16))
    assert made.held == 2 * (15 * MIB + SMALL_BYTES)
    # Not quite 18 MiB are left to large bodies.
    third = made.hold("c")
    grown = len(list(takewhile(bool, (third.grow(MIB // 2) for _ in range(64)))))
    assert grown == 35
    assert made.held == 2 * (15 * MIB + SMALL_BYTES), "what didn't fit is given back whole"


def test_what_is_released_is_there_again_and_callers_are_forgotten() -> None:
    made, _ = budget()
    holds = [made.hold("a"), made.hold("a"), made.hold("b")]
    assert all(hold.grow(size) for hold, size in zip(holds, (MIB, 10, 20 * MIB), strict=True))
    for hold in holds:
        hold.release()
        hold.release()  # twice is once
    assert made.held == 0
    assert not made._large_of
    assert not made._small_of
    assert made.hold("a").grow(32 * MIB)


def test_one_of_the_largest_always_fits() -> None:
    made, _ = budget(max_mib=16)
    assert made.hold("a").grow(16 * MIB)


@pytest.mark.parametrize(
    ("scope", "caller"),
    [
        ({"state": {"caller": Caller(key_id=7, name="x")}, "client": ("10.0.0.1", 1)}, (7, "x")),
        ({"state": {"caller": Caller(name="admin")}, "client": ("10.0.0.1", 1)}, (None, "admin")),
        ({"state": {"caller": Caller()}, "client": ("10.0.0.1", 1)}, "10.0.0.1"),
        ({"client": ("10.0.0.1", 1)}, "10.0.0.1"),
        ({"client": None}, None),
    ],
)
def test_a_caller_is_its_key_or_else_its_address(scope: dict[str, Any], caller: object) -> None:
    assert caller_of(scope) == caller


class Upload:
    """A body that comes when the test says so."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self.is_sent = asyncio.Event()
        self.may_end = asyncio.Event()

    async def body(self) -> AsyncIterator[bytes]:
        yield self._first
        self.is_sent.set()  # the transport asks for more: the first part is read
        await self.may_end.wait()
        yield b'"}'


async def metric(client: AsyncClient, line: str) -> float:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(float(each.split()[-1]) for each in lines if each.startswith(f"mlapi_{line}"))


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
METRICS = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
JSON = {"Content-Type": "application/json"}


def all_of(most: int) -> dict[str, Any]:
    """Settings with which no body may have more."""
    return dict.fromkeys(("max_body_bytes", "max_documents_bytes", "max_image_body_bytes"), most)


async def test_uploads_over_the_bound_get_503_and_others_are_served(tmp_path: Path) -> None:
    """The bound is 400 kB: 200 kB for large bodies of one caller."""
    bound = all_of(150_000)
    async with serving(tmp_path, max_body_bytes_in_flight=400_000, **bound) as client:
        upload = Upload(b'{"text": "' + b"x" * 100_000)
        slow = asyncio.create_task(client.post("/predict", content=upload.body(), headers=JSON))
        await upload.is_sent.wait()
        assert await metric(client, "body_bytes_in_flight ") == 100_010

        announced = await client.post("/predict", content=b"[" * 120_000, headers=JSON)
        chunked = await client.post("/predict", content=parts(b"[" * 1000, 120), headers=JSON)
        small = await client.post("/predict", json={"text": "fine"})
        upload.may_end.set()
        assert (await slow).status_code == 422
        assert await metric(client, "body_bytes_in_flight ") == 0
        again = await client.post("/predict", content=b"[" * 120_000, headers=JSON)
        assert await metric(client, 'bodies_refused_total{reason="caller"}') == 2
    for answer in (announced, chunked):
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["code"] == "overloaded"
        assert "Connection" not in answer.headers, "the body was read whole, so the next may come"
    assert (small.status_code, again.status_code) == (200, 400)


async def parts(part: bytes, count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield part


async def test_a_refused_upload_that_stalls_ends_in_time_and_holds_nothing(tmp_path: Path) -> None:
    app = make_app(
        tmp_path,
        max_body_bytes_in_flight=150_000,
        request_timeout_ms=200,
        **all_of(150_000),
    )
    async with (
        running(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
    ):
        first, second = Upload(b"[" * 100_000), Upload(b"[" * 100_000)
        stalled = [
            asyncio.create_task(client.post("/predict", content=each.body(), headers=JSON))
            for each in (first, second)
        ]
        await second.is_sent.wait()
        assert await metric(client, "body_bytes_in_flight ") == 100_000
        timed_out, refused = await asyncio.gather(*stalled)
        assert await metric(client, "body_bytes_in_flight ") == 0
    assert (timed_out.status_code, refused.status_code) == (408, 503)
    assert refused.headers["Connection"] == "close"
    assert refused.headers["Retry-After"] == "1"


async def test_a_client_that_is_refused_while_it_sends_can_read_why(tmp_path: Path) -> None:
    bound = all_of(500_000)
    async with listening(tmp_path, max_body_bytes_in_flight=600_000, **bound) as port:
        _, stalled = await asyncio.open_connection("127.0.0.1", port)
        stalled.write(HEAD + b"Content-Length: 450000\r\n\r\n" + b"[" * 400_000)
        await until_held(port, 400_000)
        for _ in range(8):  # a connection closed on unread data is reset, mostly
            chunked = HEAD + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            chunks = [b"2710\r\n" + b"[" * 10_000 + b"\r\n"] * 45
            answer = await exchange(port, chunked, *chunks, b"0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nretry-after: 1\r\n" in answer.lower()
        stalled.close()
        await until_held(port, 0)


async def until_held(port: int, size: int) -> None:
    async with asyncio.timeout(10):
        while b"mlapi_body_bytes_in_flight %d" % size not in await exchange(port, METRICS):
            pass


async def test_a_client_that_waits_to_be_told_is_refused_before_it_sends(tmp_path: Path) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    bound = all_of(150_000)
    async with serving(tmp_path, max_body_bytes_in_flight=150_000, **bound) as client:
        upload = Upload(b"[" * 100_000)
        slow = asyncio.create_task(client.post("/predict", content=upload.body(), headers=JSON))
        await upload.is_sent.wait()
        expecting = {**JSON, "Content-Length": "100000", "Expect": "100-continue"}
        answer = await client.post("/predict", content=never(), headers=expecting)
        upload.may_end.set()
        await slow
    assert answer.status_code == 503
    assert answer.headers["Connection"] == "close"


def test_the_bound_is_no_smaller_than_one_body(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MAX_BODY_BYTES_IN_FLIGHT: less than the largest body"):
        make_app(tmp_path, max_body_bytes_in_flight=1_048_576)
