"""How many different wrong texts an address may send as ADMIN_KEY in a minute."""

from typing import cast

import pytest

from app.core.callers import Caller
from app.errors import DatabaseUnavailableError, RateLimitExceededError
from app.features.access import lockout
from app.features.access.keys import KeyService
from app.features.access.limits.limiter import Limiter
from app.features.access.limits.memory import MemoryStorage
from app.features.access.lockout import FAILURES, MAX_WRONG, WINDOW_S, GuessLimit, Lockout
from app.features.access.metrics import AccessMetrics


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def exhaust(guess_limit: GuessLimit, address: str) -> None:
    for number in range(MAX_WRONG):
        guess_limit.check(f"wrong-{number}", address=address)
        guess_limit.add(f"wrong-{number}", address=address)


def test_an_address_has_so_many_guesses_and_gets_them_back() -> None:
    clock = Clock()
    guess_limit = GuessLimit(clock=clock)
    exhaust(guess_limit, "a")
    with pytest.raises(RateLimitExceededError) as refused:
        guess_limit.check("another", address="a")
    assert refused.value.retry_after_s == WINDOW_S
    guess_limit.check("wrong-0", address="a")  # not a new guess
    guess_limit.check("another", address="b")
    clock.now_s += WINDOW_S
    exhaust(guess_limit, "a")


def test_a_wall_clock_that_is_set_back_or_on_gives_no_guesses_back() -> None:
    wall = Clock()
    guess_limit = GuessLimit(clock=Clock(), wall_clock=wall)
    exhaust(guess_limit, "a")
    for now_s in (1000.0, 10.0, 10_000.0):
        wall.now_s = now_s
        with pytest.raises(RateLimitExceededError) as refused:
            guess_limit.check("another", address="a")
        assert refused.value.headers["X-RateLimit-Reset"] == str(int(now_s + WINDOW_S))


def test_an_ended_window_behind_one_that_hasn_t_ended_is_replaced() -> None:
    clock = Clock()
    guess_limit = GuessLimit(clock=clock)
    exhaust(guess_limit, "a")
    clock.now_s -= 30  # "b" ends before "a" does
    exhaust(guess_limit, "b")
    clock.now_s += WINDOW_S
    exhaust(guess_limit, "b")
    with pytest.raises(RateLimitExceededError):
        guess_limit.check("another", address="b")


def test_addresses_are_bounded_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lockout, "MAX_ADDRESSES", 2)
    guess_limit = GuessLimit(clock=Clock())
    for address in ("a", "b", "c"):
        exhaust(guess_limit, address)
    guess_limit.check("another", address="a")
    for address in ("b", "c"):
        with pytest.raises(RateLimitExceededError):
            guess_limit.check("another", address=address)


class Silent:
    """A key service whose database doesn't answer."""

    def is_admin_like(self, _text: str) -> bool:
        return False

    async def verify(self, _text: str, *, in_turn: bool) -> Caller:
        assert not in_turn
        raise DatabaseUnavailableError


async def test_a_key_that_couldn_t_be_looked_up_is_not_counted_as_wrong() -> None:
    counts = Limiter(MemoryStorage(), metrics=AccessMetrics())
    lockout = Lockout(cast("KeyService", Silent()), counts)
    for _ in range(MAX_WRONG + 1):
        with pytest.raises(DatabaseUnavailableError):
            await lockout.verify("mlk_1", address="a")
    assert (await counts.peek(FAILURES, "key", "a")).remaining == MAX_WRONG
