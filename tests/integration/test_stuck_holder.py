"""A holder of the table's lock that is stopped: continued, or ended, by who waits."""

from __future__ import annotations

import errno
import os
import signal
import time

import pytest

from qjsupervisor.table.layout import Header
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.stuck_holder import is_stopped
from tests.helpers import wait_until

from .holders import Fork, exit_status, hold, reaped


def test_a_stopped_holder_is_continued_by_who_waits(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    pid = fork(hold(table, sign))
    os.eventfd_read(sign)
    wait_until(lambda: is_stopped(pid), "it stops")
    repairs = table.core.words[Header.REPAIRS]
    before_s = time.monotonic()
    table.worker_slot(0).attach()
    assert time.monotonic() - before_s < 1
    assert os.eventfd_read(sign) == 1
    assert exit_status(pid) is None, "it lives"
    assert table.core.words[Header.REPAIRS] == repairs, "and has left everything as it should be"


def test_a_stopped_holder_that_cannot_be_continued_is_killed(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    """One that is traced stays stopped: as under a debugger."""
    pid = fork(hold(table, sign, trace=True))
    os.eventfd_read(sign)
    # Another child waits, for which the holder is not its parent; we are the tracer, and do not let it go on.
    waiter = fork(lambda: table.worker_slot(0).attach())
    wait_until(lambda: exit_status(waiter) is not None, "the other one got the lock")
    assert exit_status(waiter) == 0
    wait_until(lambda: exit_status(pid) is not None, "the holder was killed")
    status = exit_status(pid)
    assert status is not None
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_the_watch_names_a_stopped_holder_at_once(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    pid = fork(hold(table, sign))
    os.eventfd_read(sign)
    wait_until(lambda: is_stopped(pid), "it stops")
    assert table.stuck_owner(time.monotonic_ns()) == pid


def test_a_master_stopped_inside_the_lock_is_continued_by_its_workers(
    table: SemaphoreTable, fork: Fork, sign: int
) -> None:
    """The workers' parent, whom they never end, stands for the master."""
    done = os.eventfd(0, os.EFD_CLOEXEC)

    def master() -> None:
        worker = os.fork()
        if worker == 0:
            os.eventfd_read(sign)
            table.worker_slot(0).attach()
            os.eventfd_write(done, 1)
            os._exit(0)
        assert table.core.enter(time.monotonic_ns())
        os.eventfd_write(sign, 1)
        os.kill(os.getpid(), signal.SIGSTOP)
        table.core.leave()
        os._exit(os.waitpid(worker, 0)[1])

    pid = fork(master)
    assert os.eventfd_read(done) == 1
    os.close(done)
    wait_until(lambda: exit_status(pid) is not None, "the master went on")
    assert exit_status(pid) == 0


def test_who_cannot_be_asked_about_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("builtins.open", full)
    assert not is_stopped(os.getpid())


def test_whether_a_process_is_stopped(fork: Fork) -> None:
    pid = fork(signal.pause)
    assert not is_stopped(pid)
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid), "it stops")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    reaped[pid] = 9
    assert not is_stopped(pid)
