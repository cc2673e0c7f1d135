"""Pauses before the next try: they double, end at the longest, and differ by chance."""

import pytest

from app.core.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=1, max_s=10)
    assert [backoff.pause_s(failures) for failures in range(7)] == [1, 1, 2, 4, 8, 10, 10]
    assert backoff.pause_s(100_000) == 10


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 4.0), (0.5, 3.0), (0.999, 2.002)])
def test_chance_shortens_a_pause_by_its_share_at_most(chance: float, expected: float) -> None:
    backoff = Backoff(first_s=1, max_s=60, jitter=0.5, chance=lambda: chance)
    assert backoff.pause_s(3) == expected


def test_pauses_with_jitter_differ() -> None:
    backoff = Backoff(first_s=0.2, max_s=5, jitter=0.2)
    pauses = {backoff.pause_s(9) for _ in range(9)}
    assert len(pauses) > 1
    assert all(4 <= pause_s <= 5 for pause_s in pauses)
