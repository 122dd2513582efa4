"""Deals with a stopped holder of the table's lock, for which all other processes wait."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


class HolderWatch:
    """Watches the holder of a lock while one process waits for it.

    A holder needs the lock for well under a millisecond. A stopped one (SIGSTOP, a debugger) would block every
    database. SIGCONT is usually enough, also for the master, which workers may not kill: it releases the lock and can
    be stopped again afterwards. A process that stays stopped (because it is traced) is killed; its successor reads its
    database again. A master traced while holding the lock blocks everything until it continues.
    """

    def __init__(self, holder: Callable[[], tuple[int, int]]) -> None:
        """`holder`: returns the holder's process id, 0 = none, and a number that changes whenever the lock is taken."""
        self._holder = holder
        self._suspect = (0, 0)
        #: How many consecutive looks found the same holder without progress.
        self._looks = 0

    def look(self) -> None:
        """Continue a holder that is stopped since the last look; kill it if that did not help."""
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
    """Signal a process that may have ended."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass  # it holds nothing any more


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped (by a signal or a debugger); False if it has ended or cannot be examined."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            # The name before the state may contain anything, including parentheses.
            return stat.read().rpartition(b") ")[2][:1] in (b"T", b"t")
    except OSError:  # it has just ended, or no descriptor is left
        return False
