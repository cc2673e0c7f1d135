"""Admission: predicted waits, honest refusals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.batching.admission import SAFETY, Admission, SpeedMeter


def meter(workers: int = 2, *, tokens: int = 100, seconds: float = 0.1) -> SpeedMeter:
    made = SpeedMeter(workers=workers)
    made.observe(tokens=tokens, seconds=seconds)
    return made


def test_the_first_call_sets_the_speed_and_later_ones_move_it() -> None:
    speed = meter()
    assert speed.drain_s(1000) == pytest.approx(0.5)
    assert speed.predict_s(1000) == pytest.approx(0.6)
    for _ in range(100):
        speed.observe(tokens=100, seconds=0.2)
    assert speed.drain_s(1000) == pytest.approx(1.0, rel=0.01)


def test_what_fits_the_deadline_is_admitted_and_what_doesn_t_is_told_when_it_would() -> None:
    admission = Admission(meter(), max_queued_tokens=10_000)
    assert admission.judge(ahead=1000, own=10, remaining_s=1).is_admitted
    refused = admission.judge(ahead=5000, own=10, remaining_s=1)
    assert not refused.is_admitted
    assert refused.retry_after_s == 2  # 2.6 s predicted, times the safety, less the second


def test_an_empty_queue_is_full_for_nobody() -> None:
    admission = Admission(meter(), max_queued_tokens=100)
    assert admission.judge(ahead=0, own=5000, remaining_s=60).is_admitted
    assert not admission.judge(ahead=1, own=5000, remaining_s=60).is_admitted


@given(st.integers(0, 100_000), st.integers(1, 10_000), st.floats(0, 100))
def test_waiting_as_long_as_told_is_enough(ahead: int, own: int, remaining_s: float) -> None:
    speed = meter()
    admission = Admission(speed, max_queued_tokens=50_000)
    verdict = admission.judge(ahead=ahead, own=own, remaining_s=remaining_s)
    if verdict.is_admitted:
        assert verdict.predicted_s * SAFETY <= remaining_s
        assert verdict.retry_after_s == 0
        return
    assert verdict.retry_after_s >= 1
    drained = ahead - verdict.retry_after_s / speed.drain_s(1)
    hopeless = speed.predict_s(own) * SAFETY > remaining_s
    later = admission.judge(ahead=max(0, int(drained)), own=own, remaining_s=remaining_s)
    assert later.is_admitted or hopeless
