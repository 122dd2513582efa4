"""When a table is read again: often enough, and never so often that reads take much of the time."""

from __future__ import annotations

import pytest

from qjsupervisor.worker.read_times import QUICK_READ_S, RECONCILE_SHARE, RELOAD_S, RELOAD_SHARE, ReadTimes


@pytest.mark.parametrize(("took_s", "after_s"), [(0.01, 300.0), (10.0, 10.0 / RECONCILE_SHARE)])
def test_the_next_read_comes_after_the_interval_or_later_where_reads_take_long(took_s: float, after_s: float) -> None:
    assert ReadTimes(300.0).was_read(took_s, 1000.0) == 1000.0 + after_s


def test_a_read_that_comes_to_nothing_is_repeated_after_the_interval() -> None:
    assert ReadTimes(300.0).begin(1000.0) == 1300.0


@pytest.mark.parametrize("took_s", [0.0, 2.0])
def test_nobody_who_asks_for_reloads_keeps_the_worker_busy(took_s: float) -> None:
    times = ReadTimes(300.0)
    times.was_read(took_s, 1000.0)
    assert times.reload_from_s == 1000.0 + RELOAD_S + took_s / RELOAD_SHARE


def test_only_a_quick_read_is_repeated_on_the_workers_own_connection() -> None:
    times = ReadTimes(300.0)
    times.was_read(QUICK_READ_S, 1000.0)
    assert not times.is_quick
    times.was_read(QUICK_READ_S / 2, 1000.0)
    assert times.is_quick
