"""The job runners under measurement, each as the real process that it is, and what its processes cost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import end, spawn
from tests.helpers import REPOSITORY, clean_environment, odoo_conf

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

OCA, OURS = "oca", "qjsupervisor"
KINDS = (OCA, OURS)
#: From SIGTERM to SIGKILL.
_STOP_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a runner works: PostgreSQL, Odoo, a folder for its files, and OCA's addon."""

    postgres: ThrowawayPostgres
    odoo_port: int
    folder: Path
    #: None: only ours is run.
    addon: Path | None


class Runner:
    """One runner over some databases; as a context manager it is started, and ended with all its processes."""

    def __init__(self, kind: str, site: Site, databases: Sequence[str], channels: str) -> None:
        self.kind = kind
        self.log = site.folder / f"{kind}.log"
        self._site = site
        self._databases = list(databases)
        self._channels = channels
        self._runtime = Path(tempfile.mkdtemp(prefix="qjs-run-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command, extra = self._oca() if self.kind == OCA else self._ours()
        environment = clean_environment(PYTHONPATH=str(REPOSITORY), PGGSSENCMODE="disable", **extra)
        with self.log.open("wb") as log:
            self._process = spawn(
                command, death_signal=signal.SIGKILL, output=log, errors=log, cwd=REPOSITORY, env=environment
            )
        return self

    def __exit__(self, *_error: object) -> None:
        members = self._tree()
        if self._process is not None:
            end(self._process, signal.SIGTERM, _STOP_S)
        for member in members:
            with suppress(psutil.NoSuchProcess):  # which also is one that only has the same number
                member.kill()
        shutil.rmtree(self._runtime, ignore_errors=True)

    def _oca(self) -> tuple[list[str], dict[str, str]]:
        site, postgres = self._site, self._site.postgres
        dsn = postgres.dsn("")
        del dsn["dbname"]
        settings = {"addon": str(site.addon), "databases": self._databases, "dsn": dsn, "port": site.odoo_port}
        path = site.folder / "oca.json"
        path.write_text(json.dumps(settings))
        path.chmod(0o600)
        return (
            [sys.executable, "-m", "tests.benchmark.oca_runner", str(path)],
            {"ODOO_QUEUE_JOB_CHANNELS": self._channels},
        )

    def _ours(self) -> tuple[list[str], dict[str, str]]:
        site = self._site
        path = site.folder / "odoo.conf"
        names = ",".join(self._databases)
        sections = {"qjsupervisor": {"graceful_timeout": 1}}
        text = odoo_conf(site.postgres, site.odoo_port, db_name=names, channels=self._channels, sections=sections)
        path.write_text(text)
        path.chmod(0o600)
        command = [sys.executable, "-m", "qjsupervisor", "start", "--config", str(path)]
        return command, {"RUNTIME_DIRECTORY": str(self._runtime)}

    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    # -- what it costs ---------------------------------------------------------------------------------

    def _tree(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            first = psutil.Process(self._process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """CPU of all its processes so far, of those that ended, too."""
        total = 0.0
        for member in self._tree():
            with suppress(psutil.NoSuchProcess, OSError):
                times = member.cpu_times()
                total += _cpu_clock_s(member.pid) + times.children_user + times.children_system
        return total

    def memory_mib(self) -> float:
        """PSS of all its processes: what they share is counted once."""
        total = 0
        for member in self._tree():
            with suppress(psutil.NoSuchProcess):
                total += member.memory_full_info().pss
        return float(total / 2**20)


def _cpu_clock_s(pid: int) -> float:
    """A process's CPU clock, its ended threads' included; /proc counts in hundredths of a second only.

    See clock_getcpuclockid(3), which Python lacks; the number is that of MAKE_PROCESS_CPUCLOCK in
    linux/posix-timers.h for CPUCLOCK_SCHED. OSError: it has ended.
    """
    return time.clock_gettime((~pid << 3) | 2)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
