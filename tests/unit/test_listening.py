"""For how long a worker does not listen, so that its own jobs' noise does not wake it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qjsupervisor.loop import Deadline, Loop
from qjsupervisor.postgres.database import Database
from qjsupervisor.postgres.waiter import Waiter
from qjsupervisor.worker.listening import FULL_QUIET_S, QUIET_S, Listening

LATER_S = 1000.0


@pytest.fixture
def listening() -> Iterator[Listening]:
    with Loop() as loop:
        sign = Deadline(loop, lambda _now_s: None)
        yield Listening(Database("db", {}, Waiter(lambda: None)), loop, lambda _now_s: None, sign)


def wakes(listening: Listening, now_s: float, *, busy: bool = True) -> float:
    """When a loop that looked at its ear just now wakes."""
    listening.watch(now_s, busy=busy)
    return listening.quiet_until_s if listening.is_quiet else LATER_S


def test_quiet_for_a_moment_after_each_start(listening: Listening) -> None:
    """Each start is in a statement, and that one has brought along what was said until then."""
    assert wakes(listening, 100.0) == LATER_S
    listening.note_started(1, 100.0, full=False)
    assert wakes(listening, 100.0) == 100.0 + QUIET_S
    listening.note_started(2, 100.005, full=False)
    assert wakes(listening, 100.005) == 100.005 + QUIET_S
    listening.note_started(2, 100.01, full=False)
    assert wakes(listening, 100.01) == 100.005 + QUIET_S
    assert wakes(listening, 100.02) == LATER_S


def test_listens_to_whom_it_has_nothing_to_fear_from(listening: Listening) -> None:
    listening.note_started(1, 100.0, full=False)
    assert wakes(listening, 100.0, busy=False) == LATER_S


def test_a_quiet_moment_that_is_over_before_the_loop_sleeps_ends_all_the_same(listening: Listening) -> None:
    """Its statements had taken longer than that; then nothing was heard until a request ended, or for 20 s."""
    listening.note_started(1, 100.0, full=False)
    listening.watch(100.0, busy=True)
    assert listening.is_quiet
    assert listening.quiet_until_s == 100.0 + QUIET_S


def test_quiet_for_longer_only_where_nothing_could_start(listening: Listening) -> None:
    """Where one channel is full and others are not, a job of another one must not wait for that."""
    listening.note_started(1, 100.0, full=True)
    assert wakes(listening, 100.0) == 100.0 + FULL_QUIET_S
    assert FULL_QUIET_S > QUIET_S
