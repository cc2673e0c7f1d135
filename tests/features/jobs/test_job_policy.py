"""When a job is tried again: by its attempts without progress."""

from dataclasses import replace
from datetime import UTC, datetime

from jobs import JOB

from app.core.backoff import Backoff
from app.features.jobs.policy import RetryPolicy

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def pause_s(policy: RetryPolicy, *, stalled_attempts: int) -> float | None:
    due_at = policy.next(replace(JOB, stalled_attempts=stalled_attempts), NOW)
    return None if due_at is None else (due_at - NOW).total_seconds()


def test_pauses_double_up_to_the_longest() -> None:
    policy = RetryPolicy(attempts=100, backoff=Backoff(first_s=1, max_s=10))
    assert [pause_s(policy, stalled_attempts=n) for n in range(7)] == [1, 1, 2, 4, 8, 10, 10]
    assert pause_s(policy, stalled_attempts=99) == 10


def test_after_so_many_attempts_without_progress_there_is_no_other() -> None:
    policy = RetryPolicy(attempts=3)
    assert pause_s(policy, stalled_attempts=2) is not None
    assert pause_s(policy, stalled_attempts=3) is None
    assert pause_s(RetryPolicy(attempts=1), stalled_attempts=1) is None


def test_an_attempt_that_got_something_done_is_never_the_last() -> None:
    assert (
        pause_s(RetryPolicy(attempts=1, backoff=Backoff(first_s=1, max_s=1)), stalled_attempts=0)
        == 1
    )


def test_progress_is_what_was_committed_since_the_claim() -> None:
    assert not replace(JOB, done=7, failed=1, lease_done=8).has_progressed
    assert replace(JOB, done=8, failed=1, lease_done=8).has_progressed
    assert replace(JOB, done=7, failed=2, lease_done=8).has_progressed
