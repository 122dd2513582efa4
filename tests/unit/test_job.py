"""Rows, as the driver hands them over."""

from __future__ import annotations

import math

import pytest

from qjsupervisor.job import job_of

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
