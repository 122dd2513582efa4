"""Tells when somebody set the system's clock, or the machine slept: times of day come sooner or later then.

A timer of the kernel that never comes due, and is cancelled when the clock is set (TFD_TIMER_CANCEL_ON_SET).
"""

from __future__ import annotations

import ctypes
import os
import selectors
import time
from collections.abc import Callable

from ..loop import Loop

# linux/timerfd.h
_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
#: A moment of CLOCK_REALTIME that nobody lives to see, and that is no overflow.
_NEVER_S = 1 << 40
_libc = ctypes.CDLL(None, use_errno=True)


class _Moments(ctypes.Structure):
    """struct itimerspec: interval and first moment, in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class ClockWatch:
    """Calls back after each change; OSError where the kernel has no such timers."""

    def __init__(self, loop: Loop, on_change: Callable[[float], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._descriptor = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._arm()
        loop.register(self._descriptor, selectors.EVENT_READ, self._hear)

    def close(self) -> None:
        """Watch no more."""
        self._loop.unregister(self._descriptor)
        os.close(self._descriptor)

    def close_in_child(self) -> None:
        os.close(self._descriptor)

    def _arm(self) -> None:
        moments = _Moments(0, 0, _NEVER_S, 0)
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        if _libc.timerfd_settime(self._descriptor, flags, ctypes.byref(moments), None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _hear(self, now_s: float) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return
        except OSError:  # ECANCELED: the clock was set
            self._arm()
        self._on_change(now_s)
