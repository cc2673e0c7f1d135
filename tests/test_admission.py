"""Admission: predicted waits, honest refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batching.admission import NOTHING, SAFETY, Admission, SpeedMeter, Work

pytestmark = pytest.mark.core

PER_CALL, PER_TOKEN = 0.004, 0.0002


def seconds(tokens: int) -> float:
    return PER_CALL + PER_TOKEN * tokens


def meter(workers: int = 2, *sizes: int) -> SpeedMeter:
    meter = SpeedMeter(workers=workers, max_batch=8)
    for tokens in sizes or (5, 200):
        meter.observe(tokens=tokens, seconds=seconds(tokens))
    return meter


def work(tokens: int, texts: int) -> Work:
    return Work(tokens=tokens, texts=texts)


def test_call_and_token_costs_are_told_apart() -> None:
    speed = meter()
    assert speed.drain_s(work(1000, 0)) == pytest.approx(1000 * PER_TOKEN / 2)
    assert speed.drain_s(work(1000, 80)) == pytest.approx((10 * PER_CALL + 1000 * PER_TOKEN) / 2)
    assert speed.predict_s(work(10, 1)) >= seconds(10)


def test_calls_are_counted_by_tokens_where_rows_of_tokens_are_what_fills_them() -> None:
    speed = SpeedMeter(workers=2, max_batch=32, max_batch_tokens=250)
    for tokens in (5, 200):
        speed.observe(tokens=tokens, seconds=seconds(tokens))
    full = (4 * PER_CALL + 1000 * PER_TOKEN) / 2
    assert speed.drain_s(work(1000, 37)) == pytest.approx(full)
    assert speed.drain_s(work(1000, 128)) == pytest.approx(full), "four calls of 32 short texts"
    assert speed.drain_s(work(1000, 256)) > full


def test_short_lone_texts_don_t_make_long_ones_look_slow() -> None:
    speed = meter(1, 5, 200, *[5] * 300, 6, 7)
    assert speed.predict_s(work(400, 1)) < 2.5 * seconds(400)


def test_it_follows_an_engine_that_becomes_slower() -> None:
    speed = meter()
    for tokens in (50, 100, 200) * 100:
        speed.observe(tokens=tokens, seconds=3 * seconds(tokens))
    assert speed.drain_s(work(1000, 0)) == pytest.approx(1000 * 3 * PER_TOKEN / 2, rel=0.01)


def test_before_the_first_call_everything_is_admitted() -> None:
    admission = Admission(SpeedMeter(workers=1, max_batch=8), max_queued_tokens=100)
    assert admission.judge(ahead=NOTHING, own=work(5000, 100), remaining_s=0.1).is_admitted


def test_an_idle_engine_refuses_only_what_clearly_can_t_make_it() -> None:
    admission = Admission(meter(1), max_queued_tokens=100)
    long = work(50_000, 100)
    assert admission.judge(ahead=NOTHING, own=long, remaining_s=9).is_admitted
    assert not admission.judge(ahead=NOTHING, own=long, remaining_s=1).is_admitted


def test_an_engine_that_stood_still_once_is_not_refused_for_ever() -> None:
    speed = meter(1)
    for _ in range(5):
        speed.observe(tokens=10, seconds=3_600)  # its process was stopped
    admission = Admission(speed, max_queued_tokens=100)

    def is_admitted() -> bool:
        return admission.judge(ahead=NOTHING, own=work(10, 1), remaining_s=1).is_admitted

    refused = 0
    while not is_admitted():
        refused += 1
        assert refused < 50
    assert refused, "or the test shows nothing"
    speed.observe(tokens=10, seconds=0.01)
    assert is_admitted()
    speed.observe(tokens=10, seconds=0.01)
    assert is_admitted()


def test_the_bound_holds_when_something_is_ahead() -> None:
    admission = Admission(meter(), max_queued_tokens=100)
    assert not admission.judge(ahead=work(90, 3), own=work(20, 1), remaining_s=60).is_admitted
    assert admission.judge(ahead=work(70, 3), own=work(20, 1), remaining_s=60).is_admitted


@given(
    st.integers(1, 100_000),
    st.integers(1, 2_000),
    st.integers(1, 10_000),
    st.floats(0, 100),
)
def test_after_the_time_that_it_is_told_a_request_is_admitted(
    tokens: int, texts: int, own: int, remaining_s: float
) -> None:
    speed = meter()
    admission = Admission(speed, max_queued_tokens=50_000)
    ahead = work(max(tokens, texts), texts)
    verdict = admission.judge(ahead=ahead, own=work(own, 1), remaining_s=remaining_s)
    if verdict.is_admitted:
        assert verdict.predicted_s * SAFETY <= remaining_s
        return
    assert verdict.retry_after_s >= 1
    left = max(0.0, 1 - verdict.retry_after_s / speed.drain_s(ahead))
    later = work(int(ahead.tokens * left), int(ahead.texts * left))
    again = admission.judge(ahead=later, own=work(own, 1), remaining_s=remaining_s)
    alone = admission.judge(ahead=NOTHING, own=work(own, 1), remaining_s=remaining_s)
    assert again.is_admitted or not alone.is_admitted or later.texts
