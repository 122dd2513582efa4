"""The lock, as far as one process can see it; with others: tests/integration/test_table_processes.py."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator

import pytest

from qjsupervisor.errors import SemaphoreError
from qjsupervisor.table.mutex import SIZE_BYTES, Acquired, RobustMutex


@pytest.fixture
def mutex() -> Iterator[RobustMutex]:
    mutex = RobustMutex(mmap.mmap(-1, mmap.PAGESIZE), SIZE_BYTES)
    yield mutex
    # The C library has a list of what we hold: it must not point to memory that is gone.
    if mutex.owner() == os.getpid():
        mutex.release()


def test_who_holds_it_is_known(mutex: RobustMutex) -> None:
    assert mutex.owner() == 0
    assert mutex.acquire(0) is Acquired.YES
    assert mutex.owner() == os.getpid()
    mutex.release()
    assert mutex.owner() == 0


@pytest.mark.parametrize("timeout_s", [0, 0.01])
def test_a_thread_does_not_get_what_another_holds(mutex: RobustMutex, timeout_s: float) -> None:
    assert mutex.acquire(timeout_s) is Acquired.YES
    got: list[Acquired] = []
    thread = threading.Thread(target=lambda: got.append(mutex.acquire(timeout_s)))
    thread.start()
    thread.join()
    assert got == [Acquired.NO]
    mutex.release()
    assert mutex.acquire(0) is Acquired.YES


def test_a_thread_that_ends_with_it_leaves_owner_died(mutex: RobustMutex) -> None:
    thread = threading.Thread(target=lambda: mutex.acquire(0))
    thread.start()
    thread.join()
    assert mutex.acquire(1) is Acquired.OWNER_DIED
    mutex.release()
    assert mutex.acquire(0) is Acquired.YES, "it is whole again"


def test_two_in_one_mapping_are_two() -> None:
    mapping = mmap.mmap(-1, mmap.PAGESIZE)
    one, other = RobustMutex(mapping, 0), RobustMutex(mapping, SIZE_BYTES)
    assert one.acquire(0) is Acquired.YES
    assert other.owner() == 0
    assert other.acquire(0) is Acquired.YES
    one.release()
    other.release()


def test_releasing_what_is_not_ours_is_an_error(mutex: RobustMutex) -> None:
    with pytest.raises(SemaphoreError, match="not ours"):
        mutex.release()
