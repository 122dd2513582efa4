"""The shared table's lock between real processes: holders that are killed, stopped, traced; a stopped master."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import Fairness
from qjsupervisor.table.layout import Header
from qjsupervisor.table.mutex import Acquired
from qjsupervisor.table.semaphore import SemaphoreTable
from qjsupervisor.table.stuck_holder import is_stopped
from tests.helpers import wait_until

_PTRACE_TRACEME = 0
Fork = Callable[[Callable[[], None]], int]


@pytest.fixture
def table() -> Iterator[SemaphoreTable]:
    table = SemaphoreTable([ChannelSpec(name="root", capacity=2)], slots=3, fairness=Fairness.ROUND_ROBIN)
    for slot in range(3):
        table.assign(slot, f"db{slot}", 1)
    table.open_start_barrier()
    yield table
    for wakeup in table.core.wakeups:
        os.close(wakeup)


@pytest.fixture
def fork() -> Iterator[Fork]:
    """Run something in a child process; those that are left at the end are killed."""
    pids = []

    def forked(body: Callable[[], None]) -> int:
        pid = os.fork()
        if pid == 0:
            _run_and_exit(body)
        pids.append(pid)
        return pid

    yield forked
    for pid in pids:
        if _exit_status(pid) is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


_reaped: dict[int, int] = {}


def _exit_status(pid: int) -> int | None:
    if pid not in _reaped:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            _reaped[pid] = status
    return _reaped.get(pid)


def _run_and_exit(body: Callable[[], None]) -> NoReturn:
    try:
        signal.alarm(20)
        body()
        os._exit(0)
    finally:
        os._exit(1)


def _hold(table: SemaphoreTable, sign: int, *, trace: bool = False) -> Callable[[], None]:
    """Take the lock, say so, and stop inside; leave it when continued, and say so."""

    def body() -> None:
        if trace:
            ctypes.CDLL(None).ptrace(_PTRACE_TRACEME, 0, None, None)
        assert table.core.enter(time.monotonic_ns())
        os.eventfd_write(sign, 1)
        os.kill(os.getpid(), signal.SIGSTOP)
        table.core.leave()
        os.eventfd_write(sign, 1)
        signal.pause()

    return body


@pytest.fixture
def sign() -> Iterator[int]:
    """An eventfd on which a child gives signs."""
    fd = os.eventfd(0, os.EFD_CLOEXEC)
    yield fd
    os.close(fd)


def test_a_holder_that_is_killed_leaves_owner_died(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    pid = fork(_hold(table, sign))
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


def test_a_stopped_holder_is_continued_by_who_waits(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    pid = fork(_hold(table, sign))
    os.eventfd_read(sign)
    wait_until(lambda: is_stopped(pid), "it stops")
    repairs = table.core.words[Header.REPAIRS]
    before_s = time.monotonic()
    table.worker_slot(0).attach()
    assert time.monotonic() - before_s < 1
    assert os.eventfd_read(sign) == 1
    assert _exit_status(pid) is None, "it lives"
    assert table.core.words[Header.REPAIRS] == repairs, "and has left everything as it should be"


def test_a_stopped_holder_that_cannot_be_continued_is_killed(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    """One that is traced stays stopped: as under a debugger."""
    pid = fork(_hold(table, sign, trace=True))
    os.eventfd_read(sign)
    # Another child waits, for which the holder is not its parent; we are the tracer, and do not let it go on.
    waiter = fork(lambda: table.worker_slot(0).attach())
    wait_until(lambda: _exit_status(waiter) is not None, "the other one got the lock")
    assert _exit_status(waiter) == 0
    wait_until(lambda: _exit_status(pid) is not None, "the holder was killed")
    status = _exit_status(pid)
    assert status is not None
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_the_watch_names_a_stopped_holder_at_once(table: SemaphoreTable, fork: Fork, sign: int) -> None:
    pid = fork(_hold(table, sign))
    os.eventfd_read(sign)
    wait_until(lambda: is_stopped(pid), "it stops")
    assert table.stuck_owner(time.monotonic_ns()) == pid


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
    wait_until(lambda: _exit_status(pid) is not None, "the master went on")
    assert _exit_status(pid) == 0


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
    _reaped[pid] = 9
    assert not is_stopped(pid)
