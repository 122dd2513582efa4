"""What the shared table says, for the metrics and the sparklines."""

from __future__ import annotations

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.loop import Loop
from qjsupervisor.monitor.history import DATABASE_SAMPLE_S, SAMPLE_S
from qjsupervisor.monitor.observer import Observer
from qjsupervisor.monitor.waiting import WaitingJobs
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Slot
from qjsupervisor.table.semaphore import SemaphoreTable


def table() -> SemaphoreTable:
    specs = [ChannelSpec(name="root", capacity=4), ChannelSpec(name="root.a", capacity=1)]
    made = SemaphoreTable(specs, slots=3, fairness=Fairness.ROUND_ROBIN)
    made.assign(0, "one", 1)
    made.assign(1, "two", 1)
    return made


def test_a_sample_of_each_database_now_and_again() -> None:
    shared = table()
    with Loop() as loop:
        observer = Observer(loop, shared)
        observer.start()
        first_s = loop.next_s()
        shared.worker_slot(0).set_counter(Slot.PENDING, 7)
        loop.run_due(first_s)
        assert loop.next_s() == first_s + SAMPLE_S
        assert list(observer.history.total.series.waiting) == [0, 7]
        loop.run_due(first_s + DATABASE_SAMPLE_S)
        assert observer.history.of("one").waiting[-1] == 7
        assert observer.history.of("two").waiting[-1] == 0


def test_cells_are_those_in_which_something_waits() -> None:
    shared = table()
    shared.worker_slot(0).report_pending(1, 7, 2)
    with Loop() as loop:
        observer = Observer(loop, shared)
        assert observer.cells() == [WaitingJobs("one", "root.a", 5, 2)]
        assert observer.totals() == shared.totals()
