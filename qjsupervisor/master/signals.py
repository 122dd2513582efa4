"""Signals as data: handlers only note what came, the main loop takes it.

Must not log, lock, kill or raise inside a handler. Used by the master, and by whatever child wants the same.
Nothing here decides what a signal means.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

#: As pthread_sigmask gives it; real-time signals without a name are numbers.
Mask = set[Any]
_Handler = Any  # what signal.signal() takes and gives: a callable, SIG_DFL, SIG_IGN or None

#: What a terminal or an operator sends to a whole process group; a child leaves these to its master. USR1 too:
#: each process notices by itself that its log file was moved.
_MASTERS_OWN = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class SignalQueue:
    """Signals noted by handlers and taken by the main loop; a context manager that restores everything.

    Selectable: the wake-up descriptor becomes readable when a signal arrives, also between the look at the
    queue and the wait. Only the main thread may enter and leave it.
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
        # The descriptor first: a signal between the two must not be noted without a wake-up.
        self._former_wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for signum in self._signums:
            self._former[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._former.items():
            # None: a handler that was not installed from Python, it cannot be put back by us.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._former.clear()
        signal.set_wakeup_fd(self._former_wakeup_fd)
        self.close()

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        self._pending.append(signum)

    def fileno(self) -> int:
        return self._reader.fileno()

    def drain(self) -> list[int]:
        """Return the signals noted since the last call, in order; two of a kind stay two where seen apart."""
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass  # the bytes only woke us; _pending says which
        pending, self._pending = self._pending, []
        return pending

    def close(self) -> None:
        """Close the descriptors; enough in a child, whose handlers are reset by reset_in_child()."""
        self._reader.close()
        self._writer.close()


@contextmanager
def all_blocked() -> Iterator[Mask]:
    """Block every signal for the body and give it the former mask; the child of a fork inherits the block."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield former
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def reset_in_child() -> None:
    """Undo the master's handlers in a child whose signals are still blocked.

    TERM and CHLD get the default, so that a child that has not set up its own stop dies of TERM; what a
    terminal sends to the whole group is ignored. SIGPIPE stays ignored, as Python has it.
    """
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for signum in _MASTERS_OWN:
        signal.signal(signum, signal.SIG_IGN)
