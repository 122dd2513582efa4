"""One forked child of the master: the fork itself, and what the child does before and after its body.

Every child (worker, scout, monitor) is made here, and ends here: it never returns into the master's frames,
whatever its body raises. Does not decide when a child is started or ended.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

import setproctitle

from .. import logs
from ..control import Pipe
from ..states import EXIT_FAULT
from .signals import Mask, all_blocked, reset_in_child

#: What runs in the child; returns its exit code.
Body = Callable[[Pipe], int]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STDERR = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """The master's handle on a running child: its process id, and the master's end of its pipe."""

    def __init__(self, pid: int, pipe: Pipe, kill: Callable[[int, int], None] = os.kill) -> None:
        self.pid = pid
        self.pipe = pipe
        self._kill = kill

    def signal(self, signum: int) -> None:
        """Send a signal; its process id stays ours until it is reaped, so nobody else can be hit."""
        self._kill(self.pid, signum)


class ChildSpawner:
    """Makes children. `close_inherited` closes, in the child, every descriptor that only the master may have."""

    def __init__(
        self,
        close_inherited: Callable[[], None],
        fork: Callable[[], int] = os.fork,
        kill: Callable[[int, int], None] = os.kill,
    ) -> None:
        self._close_inherited = close_inherited
        self._fork = fork
        self._kill = kill

    def spawn(self, title: str, body: Body) -> Child:
        """Fork a child that runs `body` with its end of a new control pipe.

        OSError where the system has no process, memory or descriptor left; nothing is left behind then.
        """
        ours, theirs = Pipe.pair()
        master_pid = os.getpid()
        try:
            # Blocked until the child has its own handlers: the master's would note a signal for nobody.
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
    """The frame that a child never leaves: a fault is logged, once; then the process ends, at once.

    No `except` could do that: also SystemExit, KeyboardInterrupt and a fault in the logging itself must not
    unwind into the master's frames, or there are two masters.
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
    """Make the fork a process of its own: group, handlers, end with its master, name."""
    # A group of its own: Ctrl-C at a terminal reaches the master alone, which stops its children in order.
    # And when the master dies, the kernel continues a stopped child (its group becomes an orphaned one),
    # which then meets the signal below; otherwise it would stay for ever.
    os.setpgid(0, 0)
    reset_in_child()
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != master_pid:
        raise SystemExit(EXIT_FAULT)  # it died before we asked to be told
    # SIGABRT, and what the processor sends, write the stacks of all threads, then do what they always do.
    faulthandler.enable(file=_STDERR, all_threads=True)
    setproctitle.setproctitle(title)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def exited_children() -> Iterator[tuple[int, int]]:
    """Yield (pid, exit code) of each child that has exited, without blocking; -9: killed by signal 9.

    One SIGCHLD may stand for many deaths, hence the loop. Any child, also one that is not ours: as process 1
    of a container the master inherits the orphans.
    """
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # no children at all
            return
        if pid == 0:  # children, but none has exited
            return
        yield pid, os.waitstatus_to_exitcode(status)


def exit_reason(exit_code: int) -> str:
    """What waitpid said, in words; negative: the number of the signal that ended it."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by signal {-exit_code} ({signal.Signals(-exit_code).name})"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-exit_code}"
