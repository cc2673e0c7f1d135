"""What keeps responses, in memory and in Redis: the same bounds, and nobody sees another's."""

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from app.errors import ResponsesUnavailableError
from app.services.kept_in_redis import open_in_redis
from app.services.kept_responses import (
    MAX_RECORD_BYTES,
    KeepingBounds,
    KeptResponses,
    ResponsesInMemory,
)

# Of this run: other tests use the same server.
ONE, OTHER = f"one-{uuid.uuid4()}", f"other-{uuid.uuid4()}"
BOUNDS = KeepingBounds(count=2, seconds=3600, bytes_in_memory=2 * MAX_RECORD_BYTES)


@pytest.fixture
def dropped() -> list[str]:
    """Reasons, in order."""
    return []


@pytest.fixture(params=["memory", "redis"])
async def kept(request: pytest.FixtureRequest, dropped: list[str]) -> AsyncIterator[KeptResponses]:
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            yield ResponsesInMemory(BOUNDS, on_dropped=dropped.append)
        else:
            url = request.getfixturevalue("redis_url")
            opened = open_in_redis(url, BOUNDS, on_dropped=dropped.append)
            yield await stack.enter_async_context(opened)


async def test_a_record_is_its_owner_s_until_it_is_deleted(kept: KeptResponses) -> None:
    assert await kept.put(ONE, "a", b"mine")
    assert await kept.get(ONE, "a") == b"mine"
    assert await kept.get(OTHER, "a") is None
    assert not await kept.delete(OTHER, "a")
    assert await kept.delete(ONE, "a")
    assert not await kept.delete(ONE, "a")
    assert await kept.get(ONE, "a") is None


async def test_the_oldest_of_an_owner_makes_room_and_is_counted(
    kept: KeptResponses, dropped: list[str]
) -> None:
    for owner, name in ((ONE, "a"), (OTHER, "a"), (ONE, "b"), (ONE, "c")):
        assert await kept.put(owner, name, name.encode())
    there = [await kept.get(ONE, name) for name in "abc"]
    assert there == [None, b"b", b"c"]
    assert await kept.get(OTHER, "a") == b"a"
    assert dropped == ["full"]


async def test_one_that_is_too_large_is_not_kept(kept: KeptResponses, dropped: list[str]) -> None:
    assert not await kept.put(ONE, "a", bytes(MAX_RECORD_BYTES + 1))
    assert await kept.get(ONE, "a") is None
    assert dropped == ["too_large"]


async def test_memory_is_bounded_in_bytes_and_time(dropped: list[str]) -> None:
    now_s = 0.0
    bounds = KeepingBounds(count=9, seconds=10, bytes_in_memory=5)
    kept = ResponsesInMemory(bounds, on_dropped=dropped.append, clock=lambda: now_s)
    await kept.put(ONE, "a", b"aaa")
    await kept.put(OTHER, "b", b"bbb")
    assert [await kept.get(ONE, "a"), await kept.get(OTHER, "b")] == [None, b"bbb"]
    assert dropped == ["full"]
    now_s = 10.0
    assert await kept.get(OTHER, "b") is None
    assert dropped == ["full"]


async def test_redis_forgets_after_the_time(redis_url: str, dropped: list[str]) -> None:
    bounds = KeepingBounds(count=2, seconds=1, bytes_in_memory=1)
    async with open_in_redis(redis_url, bounds, on_dropped=dropped.append) as kept:
        assert await kept.put("forgets", "a", b"a")
        give_up_s = time.monotonic() + 30
        while await kept.get("forgets", "a") is not None:
            assert time.monotonic() < give_up_s
    assert dropped == []


async def test_without_redis_nothing_is_kept_and_reading_says_why(dropped: list[str]) -> None:
    nowhere = "redis://127.0.0.1:1/0"
    async with open_in_redis(nowhere, BOUNDS, on_dropped=dropped.append) as kept:
        assert not await kept.put(ONE, "a", b"a")
        for call in (kept.get(ONE, "a"), kept.delete(ONE, "a")):
            with pytest.raises(ResponsesUnavailableError):
                await call
    assert dropped == ["unavailable"]
