"""A lock between processes that survives its holder's death: a robust pthread mutex in shared memory.

It must not know what it guards. Whoever gets `Acquired.OWNER_DIED` inherits a half-done change and must repair it
(core.py does).
Layout: one pthread_mutex_t in 64 bytes of a MAP_SHARED mapping, created once, before any fork. By the kernel's
robust-futex rule the lock word contains its owner's thread id; `owner()` reads it, so a holder is known from the very
instruction that took the lock. The word's position in the structure differs between C libraries: it is found once,
by taking the lock and searching for our own thread id.
Workers may wait, in slices (`acquire(timeout_s)`), so that they can check the owner between two slices. The master
only tries (`acquire(0)`).

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
#: The bits of the lock word that hold the thread id (FUTEX_TID_MASK).
_TID_MASK = 0x3FFFFFFF
_PTHREAD_PROCESS_SHARED = 1
_PTHREAD_MUTEX_ROBUST = 1


class Acquired(enum.Enum):
    """Outcome of an attempt to take the lock."""

    NO = 0
    YES = 1
    #: Taken; the former holder died holding it.
    OWNER_DIED = 2


_NO, _YES = Acquired.NO, Acquired.YES


class _Timespec(ctypes.Structure):
    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


# PyDLL keeps the GIL, since a worker has one thread; this halves the cost of a call.
_libc = ctypes.PyDLL(None, use_errno=False)
#: musl lacks pthread_mutex_clocklock; there a clock set back lengthens one wait.
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
        """Thread id of the holder, which is the process id for workers and master; 0 = free."""
        return int(self._words[self._owner_index] & _TID_MASK)

    def acquire(self, timeout_s: float) -> Acquired:
        """Take the lock, waiting at most `timeout_s`; 0 only tries."""
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
        """Release the lock; the caller holds it."""
        result = _libc.pthread_mutex_unlock(self._address)
        if result:
            raise SemaphoreError(f"the shared table's lock was not ours to release: {os.strerror(result)}")
