"""The cost of an exchange, counted and not timed."""

from __future__ import annotations

import sys

import pytest

from qjsupervisor.states import Fairness

from .exchange import Hosting, Size

TURNS = 200
SMALL, LARGE = Size(30, 10, 60), Size(80, 100, 240)


def calls_for_a_job(kind: str, size: Size) -> float:
    """Functions of Python and of C that are called in all exchanges after a job's end."""
    counted = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    hosting = Hosting(kind, size, Fairness.ROUND_ROBIN, clock=lambda: counted)
    sys.setprofile(count)
    try:
        for _ in range(TURNS):
            hosting.turn()
    finally:
        sys.setprofile(None)
    return sum(hosting.costs) / TURNS


@pytest.mark.parametrize("kind", ["none", "min", "weight", "db_capacity", "all"])
def test_ten_times_the_channels_cost_a_job_little_more(kind: str) -> None:
    """Nothing looks at each channel, or at each database, for each start."""
    assert calls_for_a_job(kind, LARGE) < 1.6 * calls_for_a_job(kind, SMALL)
