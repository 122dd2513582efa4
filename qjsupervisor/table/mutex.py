"""A lock between processes that survives the death of its holder: a robust pthread mutex in shared memory.

What it must not do: know what it guards. Whoever gets `Acquired.OWNER_DIED` inherits a half-done change and
has to put it right (semaphore.py does).

Layout: one pthread_mutex_t in 64 bytes of a MAP_SHARED mapping, made once, before any fork. The kernel's
robust-futex rule makes the lock word hold the thread id of its owner; `owner()` reads it, so a holder is known
from the very instruction that took the lock. Where in the structure that word lies differs between C libraries:
it is found once, by taking the lock and looking for our own thread id.

Who may wait: workers, in slices (`acquire(timeout_s)`), so that they can look at the owner between two slices.
The master only ever tries (`acquire(0)`).

Sources: pthread_mutexattr_setrobust(3), Documentation/locking/robust-futex-ABI.rst of Linux.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import mmap
import os
import threading
import time

from ..errors import SemaphoreError

SIZE_BYTES = 64
#: Of the lock word: the bits that are a thread id (FUTEX_TID_MASK).
_TID_MASK = 0x3FFFFFFF
_PTHREAD_PROCESS_SHARED = 1
_PTHREAD_MUTEX_ROBUST = 1


class Acquired(enum.Enum):
    """Outcome of an attempt to take the lock."""

    NO = 0
    YES = 1
    #: Taken; the former holder died with it.
    OWNER_DIED = 2


_NO, _YES = Acquired.NO, Acquired.YES


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


# PyDLL: the interpreter's own lock stays with us, as a worker has one thread; half the cost of a call.
_libc = ctypes.PyDLL(None, use_errno=False)
#: musl has no pthread_mutex_clocklock: there a clock that is set back lengthens one wait.
_WAIT_CLOCK = time.CLOCK_MONOTONIC if hasattr(_libc, "pthread_mutex_clocklock") else time.CLOCK_REALTIME


class RobustMutex:
    """The mutex at `offset` of `mapping`; the same object is used on both sides of a fork."""

    def __init__(self, mapping: mmap.mmap, offset: int) -> None:
        self._buffer = (ctypes.c_char * SIZE_BYTES).from_buffer(mapping, offset)
        self._address = ctypes.c_void_p(ctypes.addressof(self._buffer))
        self._words = memoryview(mapping).cast("I")[offset // 4 : (offset + SIZE_BYTES) // 4]
        self._deadline = _Timespec()
        self._deadline_ref = ctypes.byref(self._deadline)
        self._initialise()
        self._owner_index = self._find_owner_word()

    def _initialise(self) -> None:
        attributes = ctypes.create_string_buffer(SIZE_BYTES)
        for step in (
            _libc.pthread_mutexattr_init(attributes),
            _libc.pthread_mutexattr_setpshared(attributes, _PTHREAD_PROCESS_SHARED),
            _libc.pthread_mutexattr_setrobust(attributes, _PTHREAD_MUTEX_ROBUST),
            _libc.pthread_mutex_init(self._address, attributes),
        ):
            if step:
                raise SemaphoreError(f"this C library makes no robust process-shared mutex: {os.strerror(step)}")

    def _find_owner_word(self) -> int:
        self.acquire(0)
        me = threading.get_native_id()
        try:
            return next(i for i, word in enumerate(self._words) if word & _TID_MASK == me)
        except StopIteration:
            raise SemaphoreError("the owner of a robust mutex cannot be read on this C library") from None
        finally:
            self.release()

    def owner(self) -> int:
        """Thread id (in a worker and in the master: the process id) of the holder; 0 = free."""
        return int(self._words[self._owner_index] & _TID_MASK)

    def acquire(self, timeout_s: float) -> Acquired:
        """Take the lock, waiting at the most `timeout_s`; 0 only tries."""
        result = _libc.pthread_mutex_trylock(self._address)
        if result == errno.EBUSY and timeout_s > 0:
            result = self._wait(timeout_s)
        if result == 0:
            return _YES
        if result == errno.EOWNERDEAD:
            _libc.pthread_mutex_consistent(self._address)
            return Acquired.OWNER_DIED
        if result in (errno.EBUSY, errno.ETIMEDOUT):
            return _NO
        raise SemaphoreError(f"the shared table's lock failed: {os.strerror(result)}")

    def _wait(self, timeout_s: float) -> int:
        until = time.clock_gettime(_WAIT_CLOCK) + timeout_s
        self._deadline.tv_sec = int(until)
        self._deadline.tv_nsec = int((until % 1) * 1e9)
        if _WAIT_CLOCK == time.CLOCK_MONOTONIC:
            return int(_libc.pthread_mutex_clocklock(self._address, _WAIT_CLOCK, self._deadline_ref))
        return int(_libc.pthread_mutex_timedlock(self._address, self._deadline_ref))

    def release(self) -> None:
        """Give the lock back; the caller holds it."""
        result = _libc.pthread_mutex_unlock(self._address)
        if result:
            raise SemaphoreError(f"the shared table's lock was not ours to release: {os.strerror(result)}")
