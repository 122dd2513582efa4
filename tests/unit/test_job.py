"""Rows, as the driver hands them over."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qjsupervisor.job import aged_us, job_of

#: extract(epoch from timestamp '294276-12-31 23:59:59.999999'), and of the first day there is.
LAST_S, FIRST_S = 9224318016000.0, -210866803200.0


@pytest.mark.parametrize("created_s", [None, 0.0, 1.5, LAST_S, FIRST_S, math.inf, -math.inf])
@pytest.mark.parametrize("eta_s", [None, 2.0, LAST_S, FIRST_S, math.inf, -math.inf])
@pytest.mark.parametrize("priority", [None, -(2**31), 2**31 - 1])
def test_every_row_fits_into_the_shared_table(
    created_s: float | None, eta_s: float | None, priority: int | None
) -> None:
    job = job_of((7, "u", None, "pending", priority, created_s, eta_s))
    assert all(-(2**63) < word < 2**63 for word in job.key)
    assert (job.eta_us is None) == (eta_s is None)
    assert job.pending.job_id == 7


def test_what_has_no_date_comes_last() -> None:
    keys = [job_of((1, "u", None, "pending", 10, date, None)).key for date in (-math.inf, 0.0, 1e9, None)]
    assert keys == sorted(keys)
    assert len(set(keys)) == 4


def test_a_missing_priority_is_the_default() -> None:
    assert job_of((1, "u", None, "pending", None, 0.0, None)).key[0] == 10


created = st.floats(1.6e9, 1.9e9)
priorities = st.integers(-100, 100)


@given(created, priorities, created, priorities, st.floats(0.001, 86400))
def test_ageing_bounds_how_long_a_job_is_overtaken(p_s: float, p: int, q_s: float, q: int, ageing_s: float) -> None:
    """A job of priority p only by those of a priority q < p that were created at most (p - q) x ageing later."""
    mine, other = aged_us(p, p_s, None, ageing_s), aged_us(q, q_s, None, ageing_s)
    later_s = q_s - p_s
    if other < mine:
        assert later_s <= (p - q) * ageing_s + 1e-5
    elif other > mine:
        assert later_s >= (p - q) * ageing_s - 1e-5


@given(priorities, created, st.none() | created, st.floats(0.001, 86400))
def test_a_job_with_an_eta_ages_from_when_it_became_due(
    priority: int, created_s: float, eta_s: float | None, ageing_s: float
) -> None:
    since_s = created_s if eta_s is None else max(created_s, eta_s)
    assert aged_us(priority, created_s, eta_s, ageing_s) == aged_us(priority, since_s, None, ageing_s)


def test_without_ageing_priority_goes_first() -> None:
    assert job_of((1, "u", "root", "pending", 5, 2.0, None)).key == (5, 2_000_000, 1)
    assert job_of((1, "u", "root", "pending", 5, 2.0, None), 60.0).key == (302_000_000, 2_000_000, 1)


@pytest.mark.parametrize("priority", [None, 0, 2147483647, -2147483648])
@pytest.mark.parametrize("created_s", [None, float("inf"), float("-inf"), 0.0, 9.2e12])
def test_whatever_a_row_holds_fits_into_the_table(priority: int | None, created_s: float | None) -> None:
    rank, created_us, _ = job_of((1, "u", "root", "pending", priority, created_s, None), 86400.0).key
    assert max(abs(rank), abs(created_us)) <= (1 << 62) + 1
