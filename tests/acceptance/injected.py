"""`python -m tests.acceptance.injected ...`: qjsupervisor with a fault in it that a file switches on.

$INJECTED_FAULT names the fault, $INJECTED_SWITCH the file; what is in the file is the database that is meant.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from qjsupervisor import cli
from qjsupervisor.master.parts import MasterParts
from qjsupervisor.worker import worker

from ..helpers import Supervisor

FAULT, SWITCH = "INJECTED_FAULT", "INJECTED_SWITCH"


class FaultySupervisor(Supervisor):
    """A supervisor with one of FAULTS; `switch` turns it on and off."""

    def __init__(self, conf: str | Path, folder: Path, fault: str) -> None:
        self.switch = folder / "switch"
        super().__init__(conf, folder, {FAULT: fault, SWITCH: str(self.switch)})

    def command(self, *arguments: str) -> list[str]:
        python, _, _module, *rest = super().command(*arguments)
        return [python, "-m", __name__, *rest]


def endless_loop(switch: Path) -> None:
    """A worker that computes for ever: the loop does not turn any more."""

    def fault(database: str) -> None:
        while _is_meant(switch, database):
            pass

    _before_each_turn(fault)


def crash(switch: Path) -> None:
    """A worker that falls over a bug."""

    def fault(database: str) -> None:
        if _is_meant(switch, database):
            raise ZeroDivisionError("an injected fault")

    _before_each_turn(fault)


def no_fork(switch: Path) -> None:
    """The system has no place for another process."""

    def fork() -> int:
        if switch.exists():
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return os.fork()

    defaults: dict[str, Any] = MasterParts.__init__.__kwdefaults__ or {}
    defaults["fork"] = fork


def clock_ahead(switch: Path) -> None:
    """Our clock is ahead of the server's by as many seconds as the switch says."""
    time_s, time_ns = time.time, time.time_ns

    def ahead_s() -> float:
        return float(switch.read_text()) if switch.exists() else 0.0

    time.time = lambda: time_s() + ahead_s()
    time.time_ns = lambda: time_ns() + int(ahead_s() * 1e9)


FAULTS: Mapping[str, Callable[[Path], None]] = {
    "endless_loop": endless_loop,
    "crash": crash,
    "no_fork": no_fork,
    "clock_ahead": clock_ahead,
}


def _is_meant(switch: Path, database: str) -> bool:
    try:
        return switch.read_text() == database
    except FileNotFoundError:
        return False


def _before_each_turn(fault: Callable[[str], None]) -> None:
    original = worker.Worker.step

    def step(self: worker.Worker, now_s: float) -> bool:
        fault(self.parts.settings.database)
        return original(self, now_s)

    worker.Worker.step = step  # type: ignore[method-assign]


if __name__ == "__main__":
    FAULTS[os.environ[FAULT]](Path(os.environ[SWITCH]))
    sys.exit(cli.main())
