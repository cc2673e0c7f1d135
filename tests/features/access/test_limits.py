"""Limits: how they are written, that they hold on every storage, and why not by slowapi alone."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from httpx2 import ASGITransport, AsyncClient
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter
from redis.asyncio import SSLConnection
from servers import Valkey, valkey
from slowapi import Limiter as SlowApiLimiter
from slowapi.errors import RateLimitExceeded
from slowapi.middleware import SlowAPIASGIMiddleware, SlowAPIMiddleware
from slowapi.wrappers import LimitGroup

from app.core.redis_url import CONNECTIONS
from app.errors import RateLimitExceededError
from app.features.access.limits.limit import MAX_CHARS, Verdict, parse
from app.features.access.limits.limiter import Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.limits.redis import open_redis
from app.features.access.metrics import AccessMetrics
from app.middleware.exceptions import to_service_error

HUNDRED = parse("100/minute")
SILENCE_S = 0.4  # of a Redis that is stopped
TURNS = 2_000  # of an event loop: a request takes a few dozen, a loop that is free 10,000 a second


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with valkey() as own:
        yield own


@pytest.fixture(params=["memory", "redis"])
async def storage(request: pytest.FixtureRequest) -> AsyncIterator[Storage]:
    if request.param == "memory":
        yield MemoryStorage()
        return
    server: Valkey = request.getfixturevalue("server")
    async with open_redis(server.url) as shared:
        await shared.reset()
        yield shared


async def turns(asked: asyncio.Future[Any]) -> int:
    """Let the event loop turn until that is done, TURNS times at most; return how often it did."""
    for turned in range(TURNS):
        if asked.done():
            return turned
        await asyncio.sleep(0)
    return TURNS


def make_limiter(storage: Storage, **settings: Any) -> Limiter:
    return Limiter(storage, metrics=AccessMetrics(), **settings)


async def hits(limiter: Limiter, text: str, number: int, *identifiers: str) -> list[bool]:
    limit = parse(text)
    return [(await limiter.hit(limit, *identifiers)).is_allowed for _ in range(number)]


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("100/minute", "100 per 1 minute"),
        ("600 per hour", "600 per 1 hour"),
        ("5/2seconds", "5 per 2 second"),
        ("600/hour; 10/second", "10 per 1 second; 600 per 1 hour"),
        ("10/second;10/second", "10 per 1 second"),
        ("200000/day", "200000 per 1 day"),
    ],
)
def test_limits_are_written_as_slowapi_writes_them(text: str, means: str) -> None:
    assert str(parse(text)) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "write it like"),
        ("many", "write it like"),
        ("100", "write it like"),
        ("100/fortnight", "write it like"),
        ("-1/minute", "write it like"),
        ("1/second; and 2/minute", "write it like"),
        ("0/minute", "from 1 to"),
        (f"{10**30}/day", "from 1 to"),
        ("5/900 years", "longer than a year"),
        (" " * 100_000 + "!", "write it like"),
        ("1" + " " * (MAX_CHARS - 2) + "!", "write it like"),
    ],
)
def test_what_is_no_limit_is_refused_in_words_and_at_once(text: str, says: str) -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match=says):
        parse(text)
    assert time.monotonic() - started < 1


async def test_a_limit_allows_what_it_says_and_no_more(storage: Storage) -> None:
    assert await hits(make_limiter(storage), "3/minute", 5, "web") == [True] * 3 + [False] * 2


async def test_callers_and_limits_are_counted_apart(storage: Storage) -> None:
    limiter = make_limiter(storage)
    assert await hits(limiter, "1/minute", 2, "predict", "web") == [True, False]
    assert await hits(limiter, "1/minute", 1, "predict", "batch") == [True]
    assert await hits(limiter, "1/minute", 1, "chat", "web") == [True]
    assert await hits(limiter, "1/hour", 1, "predict", "web") == [True]


async def test_no_caller_can_name_itself_into_another_one_s_counter(storage: Storage) -> None:
    limiter = make_limiter(storage)
    names = [("a", "b/c"), ("a/b", "c"), ("a", "b%2Fc"), ("a:b", "c"), ("é\r\n*", "c")]
    for name in names:
        assert await hits(limiter, "1/minute", 2, *name) == [True, False]


async def test_a_verdict_says_what_is_left_and_when_all_is_back(storage: Storage) -> None:
    limiter = make_limiter(storage)
    first = await limiter.hit(parse("3/minute"), "web")
    last = await limiter.hit(parse("3/minute"), "web", cost=2)
    refused = await limiter.hit(parse("3/minute"), "web")
    assert [v.remaining for v in (first, last, refused)] == [2, 0, 0]
    assert [v.limit for v in (first, last, refused)] == [3, 3, 3]
    assert 58 < refused.reset_s <= first.reset_s + 1 <= 61
    assert refused.reset_at_s == pytest.approx(time.time() + 60, abs=2)


async def hits_of_one_window(limiter: Limiter) -> list[bool]:
    """Hit three times within a window of a second; a busy machine may need another try."""
    for _ in range(10):
        began_s = time.monotonic()
        found = await hits(limiter, "2/second", 3, "web")
        if time.monotonic() - began_s < 0.9:
            return found
        await asyncio.sleep(1.05)
    pytest.fail("three hits took longer than a second, ten times")


async def test_a_window_that_is_over_begins_again(storage: Storage) -> None:
    limiter = make_limiter(storage)
    assert await hits_of_one_window(limiter) == [True, True, False]
    verdict = await limiter.peek(parse("2/second"), "web")
    await asyncio.sleep(verdict.reset_s + 0.05)  # the window's end is what is tested
    assert await hits_of_one_window(limiter) == [True, True, False]


async def test_of_several_windows_the_tightest_one_speaks(storage: Storage) -> None:
    limiter = make_limiter(storage)
    limit = parse("3/minute; 4/hour")
    verdicts = [await limiter.hit(limit, "web") for _ in range(4)]
    assert [v.is_allowed for v in verdicts] == [True, True, True, False]
    assert [(v.limit, v.remaining) for v in verdicts] == [(3, 2), (3, 1), (3, 0), (3, 0)]
    # The hour has not counted what the minute refused.
    assert (await limiter.peek(parse("4/hour"), "web")).remaining == 1


async def test_a_charge_may_pass_the_bound_and_a_look_counts_nothing(storage: Storage) -> None:
    limiter = make_limiter(storage)
    limit = parse("1000/day")
    for used, left, is_allowed in ((0, 1000, True), (999, 1, True), (500, 0, False)):
        await limiter.charge(limit, "tokens", "web", cost=used)
        looks = [await limiter.peek(limit, "tokens", "web") for _ in range(2)]
        assert [(v.remaining, v.is_allowed) for v in looks] == [(left, is_allowed)] * 2
    assert (await limiter.peek(limit, "tokens", "new")).remaining == 1000


async def test_of_costs_at_once_only_those_pass_that_find_something_left(storage: Storage) -> None:
    limiter = make_limiter(storage)
    limit = parse("5/day")

    async def spend(cost: int) -> bool:
        verdict = await limiter.spend(limit, "tokens", "web", cost=cost)
        if not verdict.is_allowed:
            await limiter.give_back(limit, "tokens", "web", cost=cost, spent=verdict)
        return verdict.is_allowed

    passed = await asyncio.gather(*(spend(2) for _ in range(20)))
    assert sum(passed) == 3, "2 and 4 were spent before the second and the third"
    assert not (await limiter.peek(limit, "tokens", "web")).is_allowed


async def test_what_was_not_counted_can_not_be_given_back(storage: Storage) -> None:
    limit = parse("5/day")
    now_s = time.time()
    limiter = make_limiter(storage, wall_clock=lambda: now_s)
    spent = await limiter.spend(limit, "web", cost=4)
    await limiter.give_back(limit, "web", cost=4, spent=replace(spent, is_counted=False))
    assert (await limiter.peek(limit, "web")).remaining == 1
    now_s = spent.reset_at_s
    await limiter.give_back(limit, "web", cost=4, spent=spent)
    assert (await limiter.peek(limit, "web")).remaining == 1, "that window is over"
    now_s -= 1
    await limiter.give_back(limit, "web", cost=4, spent=spent)
    assert (await limiter.peek(limit, "web")).remaining == 5


async def test_the_library_s_fixed_windows_see_the_same_counters(storage: Storage) -> None:
    limiter = make_limiter(storage)
    await limiter.charge(HUNDRED, "web", cost=99)
    theirs = FixedWindowRateLimiter(storage)
    assert await theirs.hit(HUNDRED.items[0], "web")
    assert not await theirs.hit(HUNDRED.items[0], "web")
    assert not (await limiter.peek(HUNDRED, "web")).is_allowed


async def test_a_storage_can_forget_a_caller_and_all_of_them(storage: Storage) -> None:
    limiter = make_limiter(storage)
    assert await storage.check()
    for caller in ("one", "two"):
        assert await hits(limiter, "1/minute", 2, caller) == [True, False]
    await storage.clear(parse("1/minute").items[0].key_for("one"))
    assert await hits(limiter, "1/minute", 2, "one") == [True, False]
    assert await storage.reset() == 2
    assert await hits(limiter, "1/minute", 1, "two") == [True]


async def test_of_400_hits_at_once_exactly_100_pass(storage: Storage) -> None:
    limiter = make_limiter(storage)
    verdicts = await asyncio.gather(*(limiter.hit(HUNDRED, "web") for _ in range(400)))
    assert sum(v.is_allowed for v in verdicts) == 100
    assert all(v.is_counted for v in verdicts)


async def test_two_replicas_on_one_redis_let_100_of_400_through(server: Valkey) -> None:
    async with open_redis(server.url) as one, open_redis(server.url) as two:
        await one.reset()
        replicas = [make_limiter(one), make_limiter(two)]
        verdicts = await asyncio.gather(*(replicas[i % 2].hit(HUNDRED, "web") for i in range(400)))
        assert sum(v.is_allowed for v in verdicts) == 100
        # Both say the same of when the window ends, whoever began it.
        ends = [v.reset_at_s for v in verdicts]
        assert max(ends) - min(ends) <= 1
        clients = await one.bridge.get_connection().client_list()  # type: ignore[attr-defined]
        assert len(clients) <= 2 * CONNECTIONS


async def test_a_hit_with_its_headers_is_one_command(server: Valkey) -> None:
    async with open_redis(server.url) as storage:
        await storage.reset()
        client = storage.bridge.get_connection()  # type: ignore[attr-defined]  # of redis-py
        limiter = make_limiter(storage)
        await limiter.hit(HUNDRED, "web")  # connects, loads the script
        await client.config_resetstat()
        assert all(await hits(limiter, "100/minute", 50, "web"))
        commands = await client.info("commandstats")
    # The first hit began the window, so nobody needs to ask when it ends.
    calls = {name: stats["calls"] for name, stats in commands.items()}
    assert calls["cmdstat_evalsha"] == 50
    assert "cmdstat_ttl" not in calls


async def test_rediss_speaks_tls() -> None:
    async with open_redis("rediss://:secret@cache.internal") as storage:
        pool = storage.bridge.get_connection().connection_pool  # type: ignore[attr-defined]
        assert pool.connection_class is SSLConnection


def test_headers_are_those_of_slowapi_and_only_a_refusal_says_retry_after() -> None:
    numbers = {"limit": 100, "remaining": 0, "reset_s": 41.2, "reset_at_s": 1_800_000_000.5}
    verdict = Verdict(is_allowed=False, is_counted=True, **numbers)  # type: ignore[arg-type]
    headers = {
        "X-RateLimit-Limit": "100",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "1800000001",
    }
    assert verdict.headers == headers
    error = verdict.refusal()
    assert isinstance(error, RateLimitExceededError)
    assert (error.status, error.code) == (429, "rate_limited")
    assert error.headers == headers | {"Retry-After": "42"}
    assert error.detail == "The limit of 100 is used up; try again in 42 s."


def test_slowapi_s_exception_is_answered_as_the_refusal_that_caused_it() -> None:
    numbers = {"limit": 1, "remaining": 0, "reset_s": 0.0, "reset_at_s": 0.0}
    refusal = Verdict(is_allowed=False, is_counted=True, **numbers).refusal()  # type: ignore[arg-type]
    (theirs,) = LimitGroup("1/minute", caller, None, False, None, None, None, 1, False)  # noqa: FBT003
    with pytest.raises(RateLimitExceeded) as raised:
        raise RateLimitExceeded(theirs) from refusal
    assert to_service_error(raised.value) is refusal
    assert refusal.headers["Retry-After"] == "1"


def caller(request: Request) -> str:
    return "one"


async def answer(request: Request) -> str:
    return "yes"


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.mark.parametrize("middleware", [SlowAPIMiddleware, SlowAPIASGIMiddleware])
async def test_slowapi_s_middleware_lets_everything_in_a_router_through(
    middleware: type[SlowAPIMiddleware] | type[SlowAPIASGIMiddleware],
) -> None:
    app = FastAPI()
    app.state.limiter = SlowApiLimiter(caller, default_limits=["1/minute"])
    app.add_middleware(middleware)
    router = APIRouter()
    router.add_api_route("/in-a-router", answer)
    app.include_router(router)
    app.add_api_route("/on-the-app", answer)
    async with client_of(app) as client:
        on_the_app = [(await client.get("/on-the-app")).status_code for _ in range(3)]
        in_a_router = [(await client.get("/in-a-router")).status_code for _ in range(3)]
    assert on_the_app == [200, 429, 429]
    assert in_a_router == [200, 200, 200]


async def test_slowapi_s_hit_blocks_the_event_loop_while_redis_is_silent(server: Valkey) -> None:
    app = FastAPI()
    app.state.limiter = slow = SlowApiLimiter(caller, storage_uri=server.url)
    app.add_api_route("/", slow.limit("9/minute")(answer))
    assert server.server is not None
    async with client_of(app) as client:
        assert (await client.get("/")).status_code == 200
        server.server.freeze()
        thaw = threading.Timer(SILENCE_S, server.server.thaw)  # on the loop it would never come
        thaw.start()
        asked = asyncio.ensure_future(client.get("/"))
        assert await turns(asked) < TURNS
        assert asked.result().status_code == 200
        thaw.join()


async def test_our_hit_does_not(server: Valkey) -> None:
    assert server.server is not None
    async with open_redis(server.url) as storage:
        limiter = make_limiter(storage, budget_s=60)  # it waits for as long as the test does
        await limiter.hit(HUNDRED, "web")
        with server.server.frozen():
            asked = asyncio.gather(*(limiter.hit(HUNDRED, "web") for _ in range(50)))
            assert await turns(asked) == TURNS
        # The loop itself has let it answer.
        assert all(verdict.is_counted for verdict in await asked)
