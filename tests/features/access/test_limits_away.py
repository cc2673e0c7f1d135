"""Limits whose storage is away, slow or full: requests pass, and somebody is told."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from servers import Server, Valkey, valkey
from test_limits import HUNDRED, hits

from app.core.throttle import LOG_EVERY_S
from app.errors import SettingsError
from app.features.access.limits.circuit import Circuit
from app.features.access.limits.limit import parse
from app.features.access.limits.limiter import RETRY_AFTER_S, Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.limits.redis import SharedStorage, open_redis
from app.features.access.limits.server_timeout import server_timeout
from app.features.access.metrics import AccessMetrics

BUDGET_S = 0.05


@dataclass
class Clock:
    """Seconds that pass when a test says so."""

    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Bench:
    """A limiter on a server that a test may stop, and what it said."""

    limiter: Limiter
    storage: SharedStorage
    metrics: AccessMetrics
    clock: Clock = field(default_factory=Clock)

    @property
    def uncounted(self) -> float | None:
        return self.metrics.registry.get_sample_value("mlapi_limiter_unavailable_total")


@pytest.fixture(scope="module")
def shared() -> Iterator[Valkey]:
    with valkey("unixsocket valkey.sock", "unixsocketperm 777") as own:
        yield own


@pytest.fixture
def server(shared: Valkey) -> Server:
    assert shared.server is not None
    return shared.server


@asynccontextmanager
async def bench(url: str) -> AsyncIterator[Bench]:
    async with open_redis(url) as storage:
        metrics, clock = AccessMetrics(), Clock()
        limiter = Limiter(storage, metrics=metrics, budget_s=BUDGET_S, clock=clock)
        yield Bench(limiter, storage, metrics, clock)


@pytest.fixture
async def away(shared: Valkey) -> AsyncIterator[Bench]:
    async with bench(shared.url) as made:
        await made.storage.reset()
        yield made


async def test_while_redis_is_silent_a_request_passes_when_the_budget_is_over(
    away: Bench, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    assert await hits(away.limiter, "1/minute", 2, "web") == [True, False]
    with server.frozen():
        started = time.monotonic()
        verdict = await away.limiter.hit(parse("1/minute"), "web")
        took_s = time.monotonic() - started
        assert verdict.is_allowed
        assert verdict.headers == {}
        # The budget, and what a busy machine adds.
        assert BUDGET_S * 0.9 < took_s < BUDGET_S + 2
        assert away.uncounted == 1
        assert [r.getMessage() for r in caplog.records] == ["limiter_unavailable"]


async def test_only_one_request_a_second_waits_for_a_silent_redis(
    away: Bench, server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, waited = away.storage.incr, 0

    async def counted(*call: Any) -> int:
        nonlocal waited
        waited += 1
        return await ask(*call)

    monkeypatch.setattr(away.storage, "incr", counted)
    with server.frozen():
        await away.limiter.hit(HUNDRED, "web")
        assert waited == 1
        for asked in range(3):
            assert all(await hits(away.limiter, "100/minute", 20, "web"))
            # The first round finds the circuit open, in the others one request tries again.
            assert waited == 1 + asked
            away.clock.now_s += RETRY_AFTER_S
        assert away.uncounted == 61
        assert len(caplog.records) == 1
        away.clock.now_s += LOG_EVERY_S
        await away.limiter.hit(HUNDRED, "web")
        assert len(caplog.records) == 2


async def test_limits_hold_again_when_redis_answers_again(away: Bench, server: Server) -> None:
    with server.frozen():
        assert all(await hits(away.limiter, "5/minute", 10, "web"))
    away.clock.now_s += RETRY_AFTER_S
    # What was sent to the silent server it may have counted, when it woke up.
    passed = await hits(away.limiter, "5/minute", 10, "web")
    assert 4 <= sum(passed) <= 5
    assert not passed[-1]


@pytest.mark.parametrize("how", ["killed", "ended"])
async def test_a_redis_that_ended_lets_requests_pass_until_it_is_back(
    away: Bench, server: Server, how: str
) -> None:
    assert await hits(away.limiter, "1/minute", 2, "web") == [True, False]
    if how == "killed":
        server.kill()
    else:
        server.stop()
    assert await hits(away.limiter, "1/minute", 2, "web") == [True, True]
    await away.limiter.charge(HUNDRED, "tokens", cost=7)
    assert (await away.limiter.peek(HUNDRED, "tokens")).is_allowed
    assert away.uncounted == 4
    server.start()
    away.clock.now_s += RETRY_AFTER_S
    # Its counters and scripts are gone; connections of before are not used again.
    assert await hits(away.limiter, "1/minute", 2, "web") == [True, False]
    assert away.uncounted == 4


async def test_a_redis_that_refuses_the_password_is_told_of_without_it(
    shared: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    user, _, place = shared.url.removeprefix("redis://:").partition("@")
    assert user
    async with bench(f"redis://:Passw0rd-of-mine@{place}") as made:
        with caplog.at_level(logging.DEBUG):
            assert all(await hits(made.limiter, "1/minute", 3, "web"))
        assert made.uncounted == 3
    (record,) = [r for r in caplog.records if r.name.startswith("app.")]
    assert record.__dict__["error"] == "AuthenticationError"
    assert all("Passw0rd-of-mine" not in str(vars(r)) for r in caplog.records)


async def test_a_redis_that_is_out_of_memory_lets_requests_pass(away: Bench) -> None:
    client = away.storage.bridge.get_connection()  # type: ignore[attr-defined]  # of redis-py
    await client.config_set("maxmemory", "1")
    try:
        assert all(await hits(away.limiter, "1/minute", 3, "web"))
        assert away.uncounted == 3
    finally:
        await client.config_set("maxmemory", "0")


@pytest.mark.parametrize("scheme", ["unix", "redis+socket", "redis+unix"])
async def test_redis_is_reached_by_a_unix_socket(
    shared: Valkey, server: Server, scheme: str
) -> None:
    password = shared.url.removeprefix("redis://:").partition("@")[0]
    async with bench(f"{scheme}://:{password}@{server.folder}/valkey.sock?virtual_host=1") as made:
        await made.storage.reset()
        assert await hits(made.limiter, "1/minute", 2, scheme) == [True, False]
        assert made.uncounted == 0


@pytest.mark.parametrize(
    "url", ["http://:Passw0rd@h", "redis://:Passw0rd@h:x", "redis://h?db=Passw0rd", "Passw0rd"]
)
async def test_an_address_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match="REDIS_URL") as raised:
        async with open_redis(url):
            pass
    assert "Passw0rd" not in str(raised.value)
    assert raised.value.__suppress_context__


async def test_a_client_that_leaves_while_redis_is_silent_takes_nothing_with_it(
    away: Bench, server: Server
) -> None:
    with server.frozen():
        waiting = [asyncio.create_task(away.limiter.hit(HUNDRED, "web")) for _ in range(100)]
        await asyncio.sleep(BUDGET_S / 5)  # into the middle of it
        for task in waiting:
            task.cancel()
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended)
    verdicts = await asyncio.gather(*(away.limiter.hit(HUNDRED, "next") for _ in range(300)))
    assert sum(v.is_allowed for v in verdicts) == 100
    assert all(v.is_counted for v in verdicts)


async def test_a_stuck_event_loop_is_not_taken_for_a_silent_redis(away: Bench) -> None:
    async def stick() -> None:
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(BUDGET_S * 2)  # noqa: ASYNC251  # this is what sticks

    await away.limiter.hit(HUNDRED, "web")  # connects
    verdict, _ = await asyncio.gather(away.limiter.hit(HUNDRED, "web"), stick())
    assert verdict.is_counted
    assert away.uncounted == 0


async def test_a_server_timeout_ends_on_time_where_the_loop_is_free() -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        async with server_timeout(0.03):
            await asyncio.Event().wait()
    assert 0.025 < time.monotonic() - started < 2
    async with server_timeout(0.001):
        pass
    await asyncio.sleep(0.005)  # no timer of it is left to cancel us


def test_after_a_failure_a_circuit_allows_one_call_at_a_time_until_one_succeeds() -> None:
    circuit = Circuit(retry_after_s=2)
    assert [circuit.may_call(0), circuit.may_call(0)] == [True, True]
    circuit.failed(10)
    assert [circuit.may_call(at) for at in (10, 11.9, 12, 12, 13.9, 14)] == [
        *(False, False, True, False, False, True)
    ]
    circuit.succeeded()
    assert [circuit.may_call(14), circuit.may_call(14)] == [True, True]


async def test_a_flood_of_callers_does_not_grow_the_memory_without_end() -> None:
    storage = MemoryStorage(max_keys=100)
    limiter = Limiter(storage, metrics=AccessMetrics())
    await limiter.charge(parse("10/day"), "tokens", "key", cost=10)
    for number in range(1_000):
        assert (await limiter.hit(HUNDRED, f"flood-{number}")).is_allowed
        await limiter.hit(HUNDRED, "busy")
    assert len(storage) == 101
    # Who keeps coming is kept, and minutes don't push out days.
    assert not (await limiter.hit(HUNDRED, "busy")).is_allowed
    assert not (await limiter.peek(parse("10/day"), "tokens", "key")).is_allowed


async def test_what_is_over_is_forgotten_without_being_asked_for() -> None:
    clock = Clock()
    storage = MemoryStorage(clock=clock)
    limiter = Limiter(storage, metrics=AccessMetrics(), wall_clock=clock)
    assert await hits(limiter, "1/minute", 2, "web") == [True, False]
    for number in range(500):
        await limiter.hit(HUNDRED, f"flood-{number}")
    clock.now_s += 59.9
    assert await hits(limiter, "1/minute", 1, "web") == [False]
    clock.now_s += 0.1
    assert await hits(limiter, "1/minute", 2, "web") == [True, False]
    for _ in range(100):
        await limiter.hit(HUNDRED, "web")
    assert len(storage) == 2
