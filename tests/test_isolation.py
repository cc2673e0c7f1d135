"""The isolation of failures: a bad item fails alone."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batching.isolation import WrongCountError, run_isolated

pytestmark = pytest.mark.core


@given(st.lists(st.booleans(), min_size=1, max_size=64))
def test_exactly_the_bad_items_fail_and_order_is_kept(is_bad: list[bool]) -> None:
    calls = 0

    def run(items: Sequence[tuple[int, bool]]) -> list[int]:
        nonlocal calls
        calls += 1
        if any(bad for _, bad in items):
            raise ValueError
        return [number for number, _ in items]

    results = run_isolated(run, list(enumerate(is_bad)))
    for number, (bad, result) in enumerate(zip(is_bad, results, strict=True)):
        assert isinstance(result, ValueError) if bad else result == number
    assert calls <= 2 * len(is_bad)


@given(st.integers(1, 40), st.integers(1, 10))
def test_a_batch_that_is_too_large_for_the_memory_is_halved(count: int, fits: int) -> None:
    def run(items: Sequence[int]) -> Sequence[int]:
        if len(items) > fits:
            raise MemoryError
        return items

    assert run_isolated(run, range(count)) == list(range(count))


def test_a_wrong_number_of_results_is_an_error_of_every_item() -> None:
    results = run_isolated(lambda items: [0] * (len(items) + 1), ["a", "b"])
    assert [type(result) for result in results] == [WrongCountError] * 2
