"""Signals as data: handlers only record them, and the main loop processes them.

A handler must not log, lock, kill or raise. Used by the master and by any child that wants the same. Nothing here
decides what a signal means.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

#: As returned by pthread_sigmask; real-time signals without a name are numbers.
Mask = set[Any]
_Handler = Any  # what signal.signal() takes and gives: a callable, SIG_DFL, SIG_IGN or None

#: Signals that a terminal or an operator sends to a whole process group; children leave them to the master. That
#: includes USR1, because each process notices by itself that its log file was moved.
_MASTERS_OWN = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class SignalQueue:
    """Signals recorded by handlers and processed by the main loop; a context manager that restores everything.

    Selectable: its descriptor becomes readable when a signal arrives, even between checking the queue and waiting. Only
    the main thread may enter and leave it.
    """

    def __init__(self, signums: Iterable[int]) -> None:
        self._signums = tuple(signums)
        self._pending: list[int] = []
        self._former: dict[int, _Handler] = {}
        self._former_wakeup_fd = -1
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> SignalQueue:
        # The descriptor first: a signal in between must not be recorded without a wake-up.
        self._former_wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for signum in self._signums:
            self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._former.items():
            # None: the handler was not installed from Python, so we cannot restore it.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._former.clear()
        signal.set_wakeup_fd(self._former_wakeup_fd)
        self.close()

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self._pending.append(signum)

    def fileno(self) -> int:
        return self._reader.fileno()

    def drain(self) -> list[int]:
        """The signals recorded since the last call, in order. The same signal may occur more than once."""
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass  # the bytes only wake us; _pending has the signals
        pending, self._pending = self._pending, []
        return pending

    def close(self) -> None:
        """Close the descriptors. Enough in a child, whose handlers reset_in_child() resets."""
        self._reader.close()
        self._writer.close()


@contextmanager
def all_blocked() -> Iterator[Mask]:
    """Block every signal for the body, and yield the previous mask; a forked child inherits the block."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield former
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def reset_in_child() -> None:
    """Undo the master's handlers in a child whose signals are still blocked.

    TERM and CHLD get the default action, so that TERM kills a child that has no handler of its own yet. Signals that a
    terminal sends to the whole group are ignored. SIGPIPE stays ignored, as Python sets it.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for signum in _MASTERS_OWN:
        signal.signal(signum, signal.SIG_IGN)
