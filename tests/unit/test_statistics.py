"""Counters and histograms in the shared table: what is added, and that no sum ever falls."""

from __future__ import annotations

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import Fairness, JobOutcome
from qjsupervisor.table.layout import DURATION_S, WAITED_S, Slot
from qjsupervisor.table.semaphore import SemaphoreTable


@pytest.fixture
def table() -> SemaphoreTable:
    made = SemaphoreTable([ChannelSpec(name="root", capacity=1)], slots=3, fairness=Fairness.ROUND_ROBIN)
    for slot, name in enumerate(("a", "b")):
        made.assign(slot, name, 1)
    return made


def test_waits_fall_into_the_bucket_whose_bound_they_do_not_exceed(table: SemaphoreTable) -> None:
    statistics = table.worker_slot(0).statistics
    for waited_s in (-1.0, 0.01, 0.011, 3600.0, 3601.0, 1e300):
        statistics.dispatched(waited_s)
    waited = table.totals().waited
    assert list(waited.bounds_s) == list(WAITED_S)
    assert waited.counts[:2] == [2, 1]
    assert waited.counts[-2:] == [1, 2]
    assert sum(waited.counts) == 6
    assert waited.sum_s == pytest.approx(10 * 365 * 86400 + 7201.021)


def test_a_sum_that_a_word_cannot_hold_stays_where_it_is(table: SemaphoreTable) -> None:
    statistics = table.worker_slot(0).statistics
    for _ in range(30_000):
        statistics.dispatched(1e300)
    waited = table.totals().waited
    assert sum(waited.counts) == 30_000
    assert 0.99 * 2**63 < waited.sum_s * 1e6 < 2**63


def test_ends_are_summed_over_all_databases(table: SemaphoreTable) -> None:
    for slot, outcome, status in ((0, JobOutcome.DONE, 200), (1, JobOutcome.DONE, 204), (1, JobOutcome.LOST, None)):
        table.worker_slot(slot).statistics.ended(outcome, status, 0.2)
    table.worker_slot(1).statistics.ended(JobOutcome.FAILED, 999, 7200.0)
    totals = table.totals()
    assert [totals.outcomes[each] for each in JobOutcome] == [2, 1, 0, 0, 1, 0]
    assert totals.statuses == [2, 0, 2, 0, 0, 0]
    assert totals.durations[JobOutcome.DONE].counts[DURATION_S.index(0.25)] == 2
    assert totals.durations[JobOutcome.FAILED].counts[-1] == 1


def test_a_new_database_in_a_slot_begins_at_nothing_and_the_sums_go_on(table: SemaphoreTable) -> None:
    statistics = table.worker_slot(1).statistics
    statistics.ended(JobOutcome.DONE, 200, 1.0)
    table.worker_slot(1).set_counter(Slot.OLDEST_US, 5)
    assert table.slot_view(1).outcomes[JobOutcome.DONE] == 1
    assert table.try_vacate(1)
    table.assign(1, "c", 1)
    view = table.slot_view(1)
    assert (view.database, view.outcomes, view.oldest_us) == ("c", (0, 0, 0, 0, 0, 0), 0)
    assert table.totals().outcomes[JobOutcome.DONE] == 1


def test_a_successor_goes_on_counting(table: SemaphoreTable) -> None:
    table.worker_slot(0).statistics.ended(JobOutcome.DONE, 200, 1.0)
    table.worker_slot(0).statistics.ended(JobOutcome.DONE, 200, 1.0)
    assert table.slot_view(0).outcomes[JobOutcome.DONE] == 2


def test_what_waits_where(table: SemaphoreTable) -> None:
    table.worker_slot(1).report_pending(0, 7, 2)
    assert table.waiting() == {"a": [(0, 0)], "b": [(5, 2)]}
    assert table.slot_view(1).not_due == 2
