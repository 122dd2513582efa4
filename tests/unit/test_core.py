"""The shared table's lock: when anything may start, and who is woken."""

from __future__ import annotations

import os

import pytest

from qjsupervisor.table.core import TableCore
from qjsupervisor.table.layout import Header, Slot

from .cores import S


def test_nothing_may_start_before_the_barrier_or_after_the_lease(core: TableCore) -> None:
    assert core.may_start(S)
    core.words[Header.LEASE_UNTIL_NS] = S
    assert not core.may_start(S)
    core.words[Header.LEASE_UNTIL_NS] = 2 * S
    core.words[Header.START_BARRIER] = 0
    assert not core.may_start(S)


def test_a_worker_is_woken_and_all_that_run_are(core: TableCore) -> None:
    core.wake(1)
    assert os.eventfd_read(core.wakeups[1]) == 1
    core.words[core.slot_base(0) + Slot.PID] = 7
    core.wake_all()
    assert os.eventfd_read(core.wakeups[0]) == 1
    for slot in (1, 2):
        with pytest.raises(BlockingIOError):
            os.eventfd_read(core.wakeups[slot])
