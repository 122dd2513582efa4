"""What a worker does about a stopped holder of the table's lock, for which it and everybody else waits."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


class HolderWatch:
    """Looks at the holder of a lock, from one process, time and again while that process waits.

    A holder is inside for well under a millisecond. One that is stopped (SIGSTOP, a debugger) would hold up every
    database. Mostly SIGCONT is enough, also for the master, which nobody here may end: it leaves the lock, and can
    be stopped again outside. What stays stopped (somebody traces it) is killed; its successor reads its database
    again. A master that is traced inside the lock holds up all until it goes on.
    """

    def __init__(self, holder: Callable[[], tuple[int, int]]) -> None:
        """`holder`: process id of the holder, 0 = none, and a number that moves each time the lock is taken."""
        self._holder = holder
        self._suspect = (0, 0)
        #: How many looks in a row have found the same holder, unmoved.
        self._looks = 0

    def look(self) -> None:
        """Continue a holder that is stopped since the last look; end it if that did not help."""
        seen = self._holder()
        self._looks = self._looks + 1 if seen == self._suspect else 0
        self._suspect = seen
        holder = seen[0]
        if not self._looks or not holder or not is_stopped(holder) or self._holder() != seen:
            return
        if self._looks == 1:
            send_signal(holder, signal.SIGCONT)
        elif holder != os.getppid():
            send_signal(holder, signal.SIGKILL)


def send_signal(pid: int, signum: int) -> None:
    """Signal a process that may be gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # then it holds nothing any more


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped (by a signal or a debugger); one that is gone, or cannot be asked about, is not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name before the state may hold anything, parentheses too.
            return stat.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:  # it has just ended, or there is no descriptor left to ask with
        return False
