"""The circuit breaker, with a clock of the test's own."""

from __future__ import annotations

import pytest

from qjsupervisor.backoff import Backoff
from qjsupervisor.odoo.breaker import ACCEPTED_AFTER_S, ONE_JOB_PAUSE_S, TOLERATED, UNPROVEN_LIMIT, Breaker
from qjsupervisor.states import TargetState


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(Backoff(first_s=1, limit_s=60, jitter=0.0))


def take_down(breaker: Breaker, now_s: float = 100.0) -> None:
    """By failures of two jobs, so that it is not one job's fault."""
    for job_id in (1, 2):
        breaker.failed(now_s, "HTTP 404", str(job_id))


def test_few_at_first(breaker: Breaker) -> None:
    sent = [100.0] * UNPROVEN_LIMIT
    assert breaker.allowance(100.0, []) == UNPROVEN_LIMIT
    assert breaker.allowance(100.1, sent) == 0
    # Not turned away for so long: that was taken, and more may follow.
    assert breaker.allowance(100.0 + ACCEPTED_AFTER_S, sent) == UNPROVEN_LIMIT


def test_all_once_it_is_proved(breaker: Breaker) -> None:
    assert breaker.record_success() is False
    assert breaker.state is TargetState.UP
    assert breaker.allowance(100.0, [100.0] * 500) > 500


def test_a_failure_takes_an_unproved_target_down_once(breaker: Breaker) -> None:
    assert breaker.failed(100.0, "HTTP 404", "1") is True
    assert breaker.failed(100.0, "HTTP 404", "2") is False
    assert (breaker.state, breaker.failures, breaker.reason) == (TargetState.DOWN, 2, "HTTP 404")


def test_a_proved_target_may_get_some_wrong(breaker: Breaker) -> None:
    breaker.record_success()
    for job_id in range(TOLERATED):
        assert breaker.failed(100.0, "HTTP 500", str(job_id)) is False
    assert breaker.state is TargetState.UP
    assert breaker.failed(100.0, "HTTP 500", str(TOLERATED)) is True
    assert breaker.state is TargetState.DOWN


def test_a_success_in_between_forgives(breaker: Breaker) -> None:
    for job_id in range(10 * TOLERATED):
        breaker.record_success()
        breaker.failed(100.0, "HTTP 500", str(job_id))
    assert breaker.state is TargetState.UP


def test_one_probe_after_the_pause(breaker: Breaker) -> None:
    take_down(breaker)
    assert breaker.allowance(breaker.retry_at_s - 0.01, []) == 0
    now_s = breaker.retry_at_s
    assert breaker.allowance(now_s, []) == 1
    breaker.probe_sent()
    assert breaker.allowance(now_s + 1000, [now_s]) == 0
    assert breaker.record_success() is True
    assert breaker.state is TargetState.UP


def test_pauses_grow_to_a_minute_and_start_anew(breaker: Breaker) -> None:
    take_down(breaker)
    pauses = []
    for _ in range(9):
        now_s = breaker.retry_at_s
        breaker.probe_sent()
        breaker.failed(now_s, "HTTP 404", "3")
        pauses.append(breaker.retry_at_s - now_s)
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60
    breaker.record_success()
    take_down(breaker, breaker.retry_at_s)
    assert breaker.retry_at_s - now_s - pauses[-1] <= 2


def test_requests_that_fail_together_are_one_failure(breaker: Breaker) -> None:
    breaker.record_success()
    for job_id in range(50):
        breaker.failed(100.0, "HTTP 404", str(job_id))
    assert breaker.retry_at_s - 100.0 <= 2


def test_one_bad_job_pauses_a_moment_only(breaker: Breaker) -> None:
    now_s = 100.0
    for _ in range(20):
        breaker.failed(now_s, "HTTP 500", "7")
        assert breaker.retry_at_s - now_s == ONE_JOB_PAUSE_S
        now_s = breaker.retry_at_s
        breaker.probe_sent()


def test_what_was_everybodys_fault_is_forgiven(breaker: Breaker) -> None:
    """It tries again at once, as many as at first, and the pauses begin anew."""
    for _ in range(5):
        take_down(breaker, breaker.retry_at_s)
    breaker.forgive()
    assert (breaker.state, breaker.failures, breaker.reason) == (TargetState.UNKNOWN, 0, "")
    assert breaker.allowance(0.0, []) == UNPROVEN_LIMIT
    take_down(breaker, 100.0)
    assert breaker.retry_at_s <= 102
    breaker.record_success()
    breaker.forgive()
    assert breaker.state is TargetState.UP


def test_a_probe_that_told_nothing_is_followed_by_another(breaker: Breaker) -> None:
    """Its job was cancelled or deleted meanwhile: the target must not wait for it for ever."""
    take_down(breaker)
    now_s = breaker.retry_at_s
    breaker.probe_sent()
    assert breaker.allowance(now_s, []) == 0
    breaker.undecided()
    assert breaker.state is TargetState.DOWN
    assert breaker.allowance(now_s, []) == 1


def test_a_knock_that_is_answered_well_ends_the_pause(breaker: Breaker) -> None:
    """And is believed less often where the next job is not run all the same."""
    now_s, pauses_s = 100.0, []
    for number in range(6):
        now_s = max(now_s, breaker.retry_at_s)
        breaker.failed(now_s, "HTTP 500", str(number))
        pauses_s.append(breaker.knock_pause_s)
        breaker.knocked(now_s)
        assert breaker.allowance(now_s, []) == 1, "one job is the probe"
    assert pauses_s == [4, 8, 16, 32, 60, 60]
    breaker.record_success()
    assert breaker.knock_pause_s == 4
