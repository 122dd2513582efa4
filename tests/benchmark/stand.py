"""What the benchmark sets up for itself: PostgreSQL, the stand-in Odoo, databases, OCA's runner out of its wheel."""

from __future__ import annotations

import json
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qjsupervisor.testing import schema
from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import end, last_lines, spawn
from tests import oca
from tests.helpers import REPOSITORY, clean_environment

from .odoo import Counts
from .runners import Runner, Site

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

_SETTINGS: Mapping[str, str | int] = {
    "max_connections": 900,
    "shared_buffers": "512MB",
    "synchronous_commit": "off",
    "max_wal_size": "2GB",
}
_TEMPLATE = "bench_template"
#: Of the stand-in Odoo: in one database, and over all of them.
_SESSIONS, _SESSIONS_OF_ALL = 8, 100
_LOOK_AGAIN_S = 0.02
_START_S = 15.0
#: A million rows are inserted by one request.
_ANSWER_S = 600.0


class GaveUp(Exception):
    """A runner did not do in time what was measured; the argument says what."""


class OdooProcess:
    """The process of odoo.py."""

    def __init__(self, postgres: ThrowawayPostgres, log: Path) -> None:
        where = {"PGHOST": postgres.host, "PGPORT": str(postgres.port)}
        who = {"PGUSER": postgres.user, "PGPASSWORD": postgres.password}
        environment = clean_environment(PYTHONPATH=str(REPOSITORY), **where, **who)
        command = [sys.executable, "-m", "tests.benchmark.odoo"]
        with log.open("wb") as errors:
            self._process = spawn(
                command,
                death_signal=signal.SIGKILL,
                output=subprocess.PIPE,
                errors=errors,
                cwd=REPOSITORY,
                env=environment,
            )
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _START_S)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self.close()
            raise RuntimeError(f"the stand-in Odoo does not start:\n{last_lines(log)}")
        self.port = int(line)

    def close(self) -> None:
        end(self._process, signal.SIGTERM, grace_s=5.0)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def begin(self, databases: Sequence[str], sessions: int) -> None:
        """Drop what runs, forget everything, and be ready to work in these databases."""
        self._ask("begin", databases=",".join(databases), sessions=sessions)

    def forget(self, watch: str | None = None) -> None:
        """Count from 0 again; `watch`: a database the requests of which are noted one by one."""
        self._ask("forget", **({} if watch is None else {"watch": watch}))

    def insert(
        self, databases: Sequence[str], count: int, channels: Sequence[str] = ("root",), sleep_s: float = 0.0
    ) -> None:
        """Insert `count` jobs in each database, in its channels in turn; returns once they are committed."""
        places = {"databases": ",".join(databases), "channels": ",".join(channels)}
        self._ask("insert", **places, count=count, sleep=sleep_s)

    def counts(self) -> Counts:
        return cast(Counts, self._ask("counts"))

    def watched(self) -> dict[str, float]:
        return cast(dict[str, float], self._ask("watched"))

    def _ask(self, action: str, **query: object) -> object:
        address = f"http://127.0.0.1:{self.port}/bench/{action}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:
            return json.load(answer)


class Stand:
    """Everything that runners are measured with. One context for a whole benchmark; nothing of it stays.

    `with_oca`: fetch OCA's runner, too. `timeout_s`: how long a runner may take for one step.
    """

    def __init__(self, *, with_oca: bool, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._with_oca = with_oca
        self._made = 0
        self._stack = ExitStack()
        self._pause = threading.Event()

    def __enter__(self) -> Self:
        with ExitStack() as stack:  # undone if the rest fails
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def _set_up(self, stack: ExitStack) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qjs-bench-"))
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        addon = _unpacked(self.folder) if self._with_oca else None
        self.postgres = stack.enter_context(ThrowawayPostgres(settings=_SETTINGS))
        self.odoo = OdooProcess(self.postgres, self.folder / "odoo.log")
        stack.callback(self.odoo.close)
        self.site = Site(postgres=self.postgres, odoo_port=self.odoo.port, folder=self.folder, addon=addon)
        self.postgres.create_database(_TEMPLATE)
        with closing(self.postgres.connect(_TEMPLATE)) as session:
            schema.install(session)
        self.postgres.make_template(_TEMPLATE)

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    # -- databases -------------------------------------------------------------------------------------

    def databases(self, count: int) -> list[str]:
        """So many, without jobs; they are made once and used by all."""
        names = [f"bench_{number}" for number in range(count)]
        for name in names[self._made :]:
            self.postgres.create_database(name, _TEMPLATE)
            self._made += 1
        self._begin(names)
        for name in names:
            self._execute(name, "TRUNCATE queue_job, queue_job_lock")
        return names

    def _begin(self, names: Sequence[str]) -> None:
        self.odoo.begin(names, max(1, min(_SESSIONS, _SESSIONS_OF_ALL // len(names))))

    def settle(self, name: str) -> None:
        """After much was inserted: statistics and visibility as autovacuum would have them soon."""
        self._execute(name, "VACUUM ANALYZE queue_job")
        self.postgres.execute("postgres", "CHECKPOINT", superuser=True)

    def put_back(self, name: str) -> None:
        """All jobs wait again, as before the last runner; nothing of it runs any more."""
        self._begin([name])
        changes = "state = 'pending', retry = 0, date_enqueued = NULL, date_started = NULL, date_done = NULL"
        self._execute(name, f"UPDATE queue_job SET {changes} WHERE state <> 'pending'")

    def _execute(self, name: str, statement: str) -> None:
        self.postgres.execute(name, statement)

    # -- runners ---------------------------------------------------------------------------------------

    def runner(self, kind: str, databases: Sequence[str], channels: str) -> Runner:
        """One that is not started yet; to be used as a context manager."""
        return Runner(kind, self.site, databases, channels)

    def warm_up(self, runner: Runner, databases: Sequence[str], watch: str | None = None) -> None:
        """Until the runner has run a job in each database; counts begin anew."""
        self.odoo.insert(databases, 1)
        self.wait(runner, lambda counts: counts["served"] >= len(databases), "a first job in each database")
        self.odoo.forget(watch)

    def wait(self, runner: Runner, predicate: Callable[[Counts], bool], what: str) -> Counts:
        """The counts once they are as wanted; GaveUp if the time is over, or the runner has ended."""
        deadline = time.monotonic() + self.timeout_s
        while True:
            counts = self.odoo.counts()
            if predicate(counts):
                return counts
            if runner.has_ended():
                raise GaveUp(f"{what}: the runner has ended:\n{last_lines(runner.log)}")
            if time.monotonic() >= deadline:
                raise GaveUp(f"{what}: not within {self.timeout_s:g} s ({counts['done']} jobs done)")
            self.pause(_LOOK_AGAIN_S)

    def pause(self, seconds: float) -> None:
        """Let so much time go by; for what is measured over a time."""
        self._pause.wait(seconds)


def _unpacked(folder: Path) -> Path:
    """The folder of OCA's addon, from the wheel in the package index."""
    with zipfile.ZipFile(oca.fetch_wheel()) as wheel:
        names = [name for name in wheel.namelist() if name.startswith("odoo/addons/queue_job/jobrunner/")]
        wheel.extractall(folder / "oca", names)
    return folder / "oca" / "odoo" / "addons" / "queue_job"


def server_version(postgres: ThrowawayPostgres) -> str:
    ((version,),) = postgres.execute("postgres", "SHOW server_version")
    return str(version)
