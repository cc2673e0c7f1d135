"""Guesses at ADMIN_KEY: so many different ones for each address in a minute."""

import pytest

from app.errors import RateLimitExceededError
from app.services import lockout
from app.services.lockout import MAX_WRONG, WINDOW_S, Guesses


class Clock:
    """Seconds that pass when the test says so."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def exhaust(guesses: Guesses, address: str) -> None:
    for number in range(MAX_WRONG):
        guesses.check(f"wrong-{number}", address=address)
        guesses.add(f"wrong-{number}", address=address)


def test_an_address_has_so_many_guesses_and_gets_them_back() -> None:
    clock = Clock()
    guesses = Guesses(clock=clock)
    exhaust(guesses, "a")
    with pytest.raises(RateLimitExceededError) as refused:
        guesses.check("another", address="a")
    assert refused.value.retry_after_s == WINDOW_S
    guesses.check("wrong-0", address="a")  # which is no new guess
    guesses.check("another", address="b")
    clock.now_s += WINDOW_S
    exhaust(guesses, "a")


def test_addresses_are_bounded_and_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lockout, "MAX_ADDRESSES", 2)
    guesses = Guesses(clock=Clock())
    for address in ("a", "b", "c"):
        exhaust(guesses, address)
    guesses.check("another", address="a")
    for address in ("b", "c"):
        with pytest.raises(RateLimitExceededError):
            guesses.check("another", address=address)
