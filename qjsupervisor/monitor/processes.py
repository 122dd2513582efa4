"""Resource usage of the supervisor's processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Field positions in /proc/PID/stat, counted after the name in parentheses.
_UTIME, _CHILDREN_STIME, _RSS = 11, 14, 21


class Process(NamedTuple):
    """All processes of one kind."""

    kind: str
    number: int
    #: Never decreases: for workers it includes ended ones (and ended scouts).
    cpu_s: float
    rss: int
    #: None: not counted. A worker has one descriptor per slot of the table.
    fds: int | None


class _Usage(NamedTuple):
    cpu_s: float
    #: CPU time of its ended children.
    ended_cpu_s: float
    rss: int


def processes_of(status: Mapping[str, Any]) -> list[Process]:
    """Usage of master, monitor, porters and workers; a process that has just ended is left out."""
    master_pid, workers = status.get("pid"), [view.get("pid") for view in status.get("databases", ())]
    master = _read(master_pid)
    if master is None:
        return []
    own = _read(os.getpid()) or _Usage(0.0, 0.0, 0)
    alive = [usage for usage in map(_read, workers) if usage is not None]
    porters = [usage for usage in map(_read, status.get("porters", ())) if usage is not None]
    return [
        *(
            [
                Process(
                    "porter", len(porters), sum(each.cpu_s for each in porters), sum(each.rss for each in porters), None
                )
            ]
            if porters
            else []
        ),
        Process("master", 1, master.cpu_s, master.rss, _descriptors(master_pid)),
        Process("monitor", 1, own.cpu_s, own.rss, _descriptors(os.getpid())),
        Process(
            "worker",
            len(alive),
            master.ended_cpu_s + sum(usage.cpu_s for usage in alive),
            sum(usage.rss for usage in alive),
            None,
        ),
    ]


def _read(pid: object) -> _Usage | None:
    with (
        suppress(OSError, ValueError, IndexError),
        open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file,
    ):
        words = file.read().rpartition(")")[2].split()
        user, system, ended_user, ended_system = (
            int(word) / _TICKS_PER_S for word in words[_UTIME : _CHILDREN_STIME + 1]
        )
        return _Usage(user + system, ended_user + ended_system, int(words[_RSS]) * _PAGE_BYTES)
    return None


def _descriptors(pid: object) -> int | None:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return None
