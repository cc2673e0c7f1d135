"""What happens often is let through once in an interval."""

from app.core.throttle import Throttle


class Clock:
    now_s = 5.0

    def __call__(self) -> float:
        return self.now_s


def test_the_first_passes_and_the_next_after_the_interval() -> None:
    clock = Clock()
    throttle = Throttle(60, clock=clock)
    assert [throttle.passes() for _ in range(3)] == [True, False, False]
    clock.now_s += 59.9
    assert not throttle.passes()
    clock.now_s += 0.1
    assert [throttle.passes() for _ in range(2)] == [True, False]


def test_keys_have_intervals_of_their_own() -> None:
    throttle = Throttle(60, clock=Clock())
    assert throttle.passes("full")
    assert throttle.passes("damaged")
    assert not throttle.passes("full")


def test_an_interval_that_is_restarted_lets_nothing_through_until_it_ends() -> None:
    clock = Clock()
    throttle = Throttle(60, clock=clock)
    throttle.restart()
    assert not throttle.passes()
    clock.now_s += 60
    assert throttle.passes()
