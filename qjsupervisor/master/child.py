"""One forked child of the master: the fork itself, and what the child does before and after its body.

Every child (worker, scout, monitor, broker) starts and ends here. It never returns into the master's frames, whatever
its body raises. This module does not decide when a child is started or ended.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import selectors
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import NoReturn, Protocol

import setproctitle

from .. import logs
from ..control import Message, Pipe
from ..states import EXIT_FAULT
from .signals import Mask, all_blocked, reset_in_child

#: What runs in the child; returns its exit code.
Body = Callable[[Pipe], int]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STDERR = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """The master's handle on a running child: its process id and the master's end of its pipe."""

    def __init__(self, pid: int, pipe: Pipe, kill: Callable[[int, int], None] = os.kill) -> None:
        self.pid = pid
        self.pipe = pipe
        self._kill = kill

    def signal(self, signum: int) -> None:
        """Send a signal. The process id stays reserved until the child is reaped, so no other process can be hit."""
        self._kill(self.pid, signum)


class Spawner(Protocol):
    """Starts a child; see ChildSpawner."""

    def spawn(self, title: str, body: Body) -> Child: ...


class ChildSpawner:
    """Forks children. `close_inherited` runs in the child and closes every descriptor that only the master may have."""

    def __init__(
        self,
        close_inherited: Callable[[], None],
        fork: Callable[[], int] = os.fork,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._close_inherited = close_inherited
        self._fork = fork
        self._kill = kill

    def spawn(self, title: str, body: Body, orders: Iterable[Message] = ()) -> Child:
        """Fork a child that runs `body` with its end of a new control pipe, in which `orders` lie already.

        Raises OSError if the system is out of processes, memory or descriptors; then nothing is left behind.
        """
        ours, theirs = Pipe.pair()
        master_pid = os.getpid()
        for order in orders:
            ours.send(order)
        try:
            # Signals stay blocked until the child has its own handlers; the master's would swallow them.
            with all_blocked() as mask:
                pid = self._fork()
                if pid == 0:
                    with _LastFrame(theirs) as frame:
                        ours.close()
                        self._close_inherited()
                        _settle(title, master_pid, mask)
                        frame.exit_code = body(theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return Child(pid, ours, self._kill)


class _LastFrame:
    """The frame that a child never leaves: a fault is logged once, and then the process exits at once.

    An `except` would not do: not even SystemExit, KeyboardInterrupt or a fault in the logging may unwind into the
    master's frames, or there would be two masters.
    """

    def __init__(self, pipe: Pipe) -> None:
        self.exit_code = EXIT_FAULT
        self._pipe = pipe

    def __enter__(self) -> _LastFrame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, traceback: TracebackType | None
    ) -> NoReturn:
        try:
            if isinstance(fault, SystemExit):
                self.exit_code = fault.code if isinstance(fault.code, int) else EXIT_FAULT
            elif fault is not None:
                reason = f"{type(fault).__name__}: {fault}"
                logs.get_logger().error("child_failed", reason=reason, exc_info=fault)
                self._pipe.send({"is": "error", "reason": reason})
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(self.exit_code)


def _settle(title: str, master_pid: int, mask: Mask) -> None:
    """Set up the forked process: group, handlers, death signal, name."""
    # A group of its own, so that Ctrl-C at a terminal reaches only the master, which stops its children in order.
    # Also, when the master dies, the kernel continues a stopped child (its group is orphaned), which then receives
    # the death signal below; otherwise it would stay for ever.
    os.setpgid(0, 0)
    reset_in_child()
    # A first collection in a child would go through all that the master has imported, and copy each page of it.
    gc.freeze()
    gc.enable()  # off in a master that has just begun
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != master_pid:
        raise SystemExit(EXIT_FAULT)  # the master died before prctl
    # SIGABRT and fatal CPU signals write the stacks of all threads before their default action.
    faulthandler.enable(file=_STDERR, all_threads=True)
    setproctitle.setproctitle(title)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def exited_children() -> Iterator[tuple[int, int]]:
    """Yield (pid, exit code) of each child that has exited, without blocking; -9: killed by signal 9.

    One SIGCHLD may stand for many deaths, hence the loop. It includes children that are not ours: as process 1 of a
    container the master inherits orphans.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # no children at all
            return
        if pid == 0:  # there are children, but none has exited
            return
        yield pid, os.waitstatus_to_exitcode(status)


def wait_for(pid: int, limit_s: float) -> int | None:
    """Wait for the end of a child; its exit code, or None where it goes on."""
    ended = os.pidfd_open(pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(ended, selectors.EVENT_READ)
            if not selector.select(limit_s):
                return None
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def exit_reason(exit_code: int) -> str:
    """The exit code in words; negative: the number of the signal that ended it."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exit_code}"
