"""Backoff and restart policy: pure numbers."""

from __future__ import annotations

import pytest

from qjsupervisor.backoff import Backoff, RestartPolicy


def pauses(backoff: Backoff, count: int) -> list[float]:
    return [round(backoff.next_s(), 3) for _ in range(count)]


def test_pauses_double_up_to_the_limit() -> None:
    assert pauses(Backoff(jitter=0), 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [(0.0, [1, 1.6, 3.2, 6.4, 12.8, 25.6, 48, 48]), (1.0, [1.2, 2.4, 4.8, 9.6, 19.2, 38.4, 60, 60])],
)
def test_jitter_spreads_within_the_limits(drawn: float, expected: list[float]) -> None:
    assert pauses(Backoff(random=lambda: drawn), 8) == expected


def test_reset_starts_again() -> None:
    backoff = Backoff(jitter=0)
    pauses(backoff, 5)
    backoff.reset()
    assert pauses(backoff, 2) == [1, 2]


def test_many_that_fail_together_do_not_come_back_together() -> None:
    drawn = {pauses(Backoff(), 10)[-1] for _ in range(200)}
    assert len(drawn) > 100
    assert all(48 <= each <= 60 for each in drawn)


def test_a_crash_loop_backs_off_and_health_forgives() -> None:
    policy = RestartPolicy(Backoff(jitter=0))
    assert [policy.delay_s(0.1) for _ in range(4)] == [1, 2, 4, 8]
    assert policy.delay_s(29.9) == 16
    assert policy.delay_s(30.0) == 1
