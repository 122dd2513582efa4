"""Removes a throw-away cluster when the process that created it has ended, even by kill -9.

Runs as a script with the cluster's directory as argument and a pipe as standard input. The owner holds the other end
of the pipe, so end of file means that it closed the pipe or died. Imports only the standard library, so that it runs
from any directory.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_QUIT_S = 5.0
_ATTEMPTS = 50


def cluster_processes(root: Path) -> list[int]:
    """The pids of the postmaster and its children; none if it does not run."""
    try:
        pid = int((root / "data" / "postmaster.pid").read_text().split()[0])
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError, IndexError):
        return []
    if os.fsencode(root) not in command:  # the pid has been reused
        return []
    return [pid, *_children(pid)]


def _children(pid: int) -> Iterator[int]:
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            # "pid (name) state parent ...", where the name may contain anything
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid:
                yield int(status.parent.name)


def end_cluster(root: Path) -> None:
    """Immediate shutdown, then SIGKILL for what is left, including stopped processes."""
    handles = []
    for pid in cluster_processes(root):
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    for handle in handles:
        _send(handle, signal.SIGCONT)
    for handle in handles[:1]:
        _send(handle, signal.SIGQUIT)
        select.select([handle], [], [], _QUIT_S)
    for handle in handles:
        _send(handle, signal.SIGKILL)
        select.select([handle], [], [], _QUIT_S)
        os.close(handle)


def remove(root: Path) -> None:
    """Remove the directory, retrying because a backend that is ending may still write to it."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(root, ignore_errors=True)
        if not root.exists():
            return
        select.select([], [], [], 0.1)


def _send(handle: int, signum: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(handle, signum)


def main() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    root = Path(sys.argv[1])
    sys.stdin.buffer.read()
    end_cluster(root)
    remove(root)


if __name__ == "__main__":
    main()
