"""Work beside a block: what crashes is logged and started again, what has ended isn't."""

import asyncio

import pytest

from app.core.background import run_in_background
from app.core.backoff import Backoff

TIMEOUT_S = 10
AT_ONCE = Backoff(first_s=0, max_s=0)


class Work:
    """Crashes a number of times, then goes on until it is cancelled."""

    def __init__(self, crashes: int) -> None:
        self.crashes = crashes
        self.starts = 0
        self.goes_on = asyncio.Event()
        self.was_cancelled = False

    async def __call__(self) -> None:
        self.starts += 1
        if self.starts <= self.crashes:
            raise ValueError("unforeseen")
        self.goes_on.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise


def crashes(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [r for r in caplog.records if r.message == "background_crashed"]
    assert all(r.exc_info for r in lines)
    return [vars(r)["work"] for r in lines]


async def test_work_that_crashes_is_logged_and_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work(crashes=2)
    async with run_in_background(work, name="watch", restart=AT_ONCE), asyncio.timeout(TIMEOUT_S):
        await work.goes_on.wait()
    assert work.starts == 3
    assert work.was_cancelled
    assert crashes(caplog) == ["watch", "watch"]


async def test_between_two_starts_there_is_a_pause() -> None:
    work = Work(crashes=1)
    hour = Backoff(first_s=3600, max_s=3600)
    async with run_in_background(work, name="watch", restart=hour) as task:
        for _ in range(9):
            await asyncio.sleep(0)
        assert work.starts == 1
        assert not task.done()


async def test_work_that_is_done_once_is_logged_but_not_started_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    work = Work(crashes=1)
    async with run_in_background(work, name="load", restart=None) as task:
        await asyncio.wait_for(task, TIMEOUT_S)
    assert work.starts == 1
    assert crashes(caplog) == ["load"]


async def test_work_that_returns_has_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        pass

    async with run_in_background(work, name="once") as task:
        await asyncio.wait_for(task, TIMEOUT_S)
    assert crashes(caplog) == []


async def test_work_waits_for_what_comes_before_it() -> None:
    before, work = asyncio.Event(), Work(crashes=0)
    async with (
        run_in_background(work, name="watch", after=before.wait),
        asyncio.timeout(TIMEOUT_S),
    ):
        await asyncio.sleep(0)
        assert work.starts == 0
        before.set()
        await work.goes_on.wait()
