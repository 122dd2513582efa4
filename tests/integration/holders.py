"""Processes that hold the lock of the shared table."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from qjsupervisor.channelspec import ChannelSpec
from qjsupervisor.states import Fairness
from qjsupervisor.table.semaphore import SemaphoreTable

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
            run_and_exit(body)
        pids.append(pid)
        return pid

    yield forked
    for pid in pids:
        if exit_status(pid) is None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


reaped: dict[int, int] = {}


def exit_status(pid: int) -> int | None:
    if pid not in reaped:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            reaped[pid] = status
    return reaped.get(pid)


def run_and_exit(body: Callable[[], None]) -> NoReturn:
    try:
        signal.alarm(20)
        body()
        os._exit(0)
    finally:
        os._exit(1)


def hold(table: SemaphoreTable, sign: int, *, trace: bool = False) -> Callable[[], None]:
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
