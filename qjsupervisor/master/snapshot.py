"""What the master adds to the contents of the shared table, for the status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from ..states import StoppedChannel, TargetHealth, Wakefulness, WorkerState
from .pauses import Scope
from .worker_process import WorkerProcess


class WorkerView(NamedTuple):
    """What the master knows of one worker."""

    database: str
    slot: int
    state: WorkerState
    pid: int | None
    restarts: int
    #: Why it is in its state, or else its last error.
    last_error: str | None
    last_error_age_s: float | None
    #: Its view of each target, from the answers. Whether a target can be reached is in the table.
    targets: Sequence[TargetHealth] = ()
    #: See modules.Modules.view; None if no module is in transition.
    modules: Mapping[str, Any] | None = None
    #: Number of jobs that have been running for longer than max_runtime.
    overdue: int = 0
    #: What its PostgreSQL is called.
    server: str = ""
    #: Sequential channels that its failed jobs stop.
    stopped: Sequence[StoppedChannel] = ()
    wakefulness: Wakefulness = Wakefulness.AWAKE


_NONE: Mapping[Any, Any] = MappingProxyType({})


class MasterSnapshot(NamedTuple):
    """What the master adds to the contents of the table."""

    pid: int
    uptime_s: float
    now_ns: int
    workers: Sequence[WorkerView]
    #: Databases that should have a worker but cannot: name -> reason.
    unserved: Mapping[str, str] = _NONE
    #: Databases without queue_job: name -> reason.
    ignored: Mapping[str, str] = _NONE
    pauses: Sequence[tuple[Scope, float | None]] = ()
    #: Problems that affect more than one database.
    problems: Sequence[str] = ()
    stopping: bool = False
    #: Lines of the master's log that could not be written since its start.
    log_lines_lost: int = 0
    #: None while a scan is running.
    next_scan_in_s: float | None = None
    #: The broker's last report (broker.view); None without a cluster.
    cluster: Mapping[str, Any] | None = None
    #: Seconds since the last completed scan; None before the first.
    scan_age_s: float | None = None
    #: See Operations.reloads.
    reloads: Mapping[str, Any] = _NONE
    #: Who ordered each pause, if known.
    paused_by: Mapping[Scope, str] = _NONE
    #: See Timetable.view; None: there is no schedule.
    schedule: Mapping[str, Any] | None = None
    #: New databases that wait until an operator resumes them, by name.
    held: Mapping[str, str] = _NONE
    #: Databases that are served and share one database.uuid.
    copies: Sequence[Sequence[str]] = ()
    #: The state file: its path, and why it is not written, or was not read.
    state: Mapping[str, str | None] = _NONE
    #: "path" of the log file (None: standard output), and the "error" that keeps lines from it.
    log: Mapping[str, Any] = _NONE
    #: Why the databases cannot be listed, and the PostgreSQL whose outage that is.
    scan_error: str | None = None
    scan_lacks: str = ""
    #: Process ids of the porters.
    porters: Sequence[int] = ()
    #: UTC seconds, to compute how long jobs have waited.
    wall_s: float = 0.0


def view_of(worker: WorkerProcess, now_s: float) -> WorkerView:
    """What is known of one worker now."""
    error = worker.reason or worker.last_error
    age_s = round(now_s - worker.last_error_s, 1) if worker.last_error else None
    return WorkerView(
        worker.database,
        worker.slot,
        worker.state,
        worker.pid,
        worker.restarts,
        error,
        age_s,
        worker.report.targets,
        worker.report.modules.view(now_s, worker.limits.upgrade_s),
        worker.report.overdue,
        worker.settings.server,
        worker.report.stopped,
        worker.wakefulness,
    )
