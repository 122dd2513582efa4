"""The shared table's lock between real processes: holders that are killed, stopped, traced; a stopped master."""

from __future__ import annotations

import os
import signal
import time

from qjsupervisor.table.layout import Header
from qjsupervisor.table.mutex import Acquired
from qjsupervisor.table.semaphore import SemaphoreTable
from tests.helpers import wait_until

from .holders import Fork, hold


def test_a_holder_that_is_killed_leaves_owner_died(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    pid = fork(hold(table, sign))
    os.eventfd_read(sign)
    assert table.core.mutex.owner() == pid
    assert table.core.mutex.acquire(0) is Acquired.NO
    repairs = table.core.words[Header.REPAIRS]
    os.kill(pid, signal.SIGKILL)
    table.core.enter_waiting(0)
    assert table.core.words[Header.REPAIRS] == repairs + 1
    table.core.leave()
    assert table.core.mutex.acquire(0) is Acquired.YES
    table.core.mutex.release()


def test_a_waiter_shows_that_it_lives(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    """Everybody who waits for the lock would look hung otherwise."""
    assert table.core.enter(time.monotonic_ns())
    table.worker_slot(1).heartbeat(1)
    fork(lambda: table.worker_slot(1).attach())
    wait_until(lambda: table.slot_view(1).heartbeat_ns > 1, "a stamp")
    first = table.slot_view(1).heartbeat_ns
    wait_until(lambda: table.slot_view(1).heartbeat_ns > first, "another stamp")
    assert table.slot_view(1).pid == 0, "it waits"
    table.core.leave()
    wait_until(lambda: table.slot_view(1).pid != 0, "it has the lock")
