"""`qjsupervisor demo`: runs the real supervisor on a throw-away PostgreSQL and a stand-in Odoo.

Every process it starts is its child and dies with it, even after kill -9. Everything it writes is in the cluster's
directory, which the caretaker removes.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

from psycopg2 import extensions

from ..testing import schema
from ..testing.postgres import ThrowawayPostgres
from ..testing.processes import DemoError, end, free_port, last_lines, spawn
from ..testing.stand_in import StandIn, module_environment
from . import outcome, work
from .view import View

_LOOK_AGAIN_S = 0.2
#: Interval at which --keep adds a few jobs.
_TRICKLE_S = 3.0
#: It takes about 20 s; slow machines need more.
_LONGEST_S = 120.0
#: More than root's capacity, so that the supervisor and not Odoo holds jobs back.
_ODOO_WORKERS = 12
_TEMPLATE = "demo_template"
#: Prefixes of variables that would configure the supervisor besides our file.
_FOREIGN_ENVIRONMENT = ("ODOO_", "QJSUPERVISOR_", "PG")

_CONF = """\
[options]
db_host = {host}
db_port = {port}
db_user = {user}
db_password = {password}

[queue_job]
channels = {channels}
host = {odoo_host}
port = {odoo_port}

[qjsupervisor]
control_socket = {socket}
monitor = 127.0.0.1:{monitor_port}
monitor_token = {token}
log_level = info
"""

#: Commands to try with --keep.
_COMMANDS = (
    "status --watch",
    f"jobs {work.SHOP} --state failed",
    f"requeue {work.SHOP} --state failed",
    f"pause {work.BOOKS}:{work.SEQUENTIAL} --for 1m",
)
_NEXT = (
    "",
    "What next?",
    "    qjsupervisor demo --keep             leave all running, with its page",
    "    qjsupervisor check -c odoo.conf      what would run of yours; it changes nothing",
    "    docs/getting-started.md              five minutes to your own jobs",
)

Connections = Mapping[str, extensions.connection]


def run(*, keep: bool = False) -> int:
    """Run the demo; exit status 0 if every job had the expected result, else 1 with the reasons printed.

    `keep`: keep running, with new jobs now and then, until Ctrl-C.
    """
    with _ended_by_signals(), View() as view:
        view.say("Starting PostgreSQL and a stand-in Odoo, making three databases ...")
        with ThrowawayPostgres() as postgres:
            log = postgres.root / "odoo.log"
            with StandIn(postgres, workers=_ODOO_WORKERS, log=log) as odoo:
                return _show(view, postgres, odoo, keep=keep)


def _show(view: View, postgres: ThrowawayPostgres, odoo: StandIn, *, keep: bool) -> int:
    with ExitStack() as stack:
        connections = {name: stack.enter_context(closing(_database(postgres, name))) for name in work.DATABASES}
        supervisor = stack.enter_context(Supervisor(postgres, odoo))
        view.say(f"PostgreSQL on port {postgres.port}, Odoo at {odoo.url}")
        view.say(f"databases {', '.join(work.DATABASES)}")
        view.say(f"channels {work.CHANNELS}")
        view.say(f"page {supervisor.page}")
        todo = work.Work(connections)
        late = _watch(view, supervisor, todo, connections)
        stats = odoo.stats()
        view.summary(work.counts(connections), stats)
        reasons = [*late, *outcome.findings(todo, connections, stats)]
        if keep:
            _say_verdict(view, reasons, f"All {len(todo.batches)} jobs came out as they should.")
            _keep(view, supervisor, todo)
        stopped = "The supervisor stopped with exit status 0."
        late = list(supervisor.stop())
        if keep:
            _say_verdict(view, late, f"{stopped} Nothing is left behind.")
        else:
            _say_verdict(view, [*reasons, *late], f"All {len(todo.batches)} jobs came out as they should. {stopped}")
            view.say_all(_NEXT)
        reasons += late
        return 1 if reasons else 0


def _say_verdict(view: View, reasons: Sequence[str], all_is_well: str) -> None:
    for reason in reasons:
        view.say(f"WRONG: {reason}")
    if not reasons:
        view.say(all_is_well)


def _keep(view: View, supervisor: Supervisor, todo: work.Work) -> None:
    """Keep running, adding a few jobs now and then, until Ctrl-C."""
    view.end_table()
    view.say_all(
        (
            "",
            "All keeps running, and a few jobs go on coming, until Ctrl-C.",
            f"The page:  {supervisor.page}",
            f"           (log in with the token {supervisor.token} to give orders there)",
            "In another terminal:",
            f"    export ODOO_RC={supervisor.conf}",
            *(f"    {_own_command()} {each}" for each in _COMMANDS),
        )
    )
    turn = 0
    with suppress(KeyboardInterrupt):
        while True:
            todo.trickle(turn)
            turn += 1
            supervisor.wait(_TRICKLE_S)


def _own_command() -> str:
    """The command as the user can type it."""
    beside = Path(sys.executable).with_name("qjsupervisor")
    if shutil.which("qjsupervisor") in (str(beside), os.path.realpath(beside)):
        return "qjsupervisor"
    return str(beside) if beside.exists() else f"{sys.executable} -m qjsupervisor"


def _watch(view: View, supervisor: Supervisor, todo: work.Work, connections: Connections) -> list[str]:
    """Insert the work and show its progress until all is done; returns complaints."""
    begin_s = time.monotonic()
    told = False
    while True:
        now_s = time.monotonic() - begin_s
        for batch in todo.put_due(now_s):
            if batch.at_s:
                view.say(f"{now_s:5.1f} s  {batch.database}: {batch.count} more jobs: {batch.about}")
        seen = work.counts(connections)
        view.progress(now_s, seen)
        if not told and todo.is_only_dead(seen):
            told = True
            view.say(f"{now_s:5.1f} s  the one that runs is dead: its Odoo worker was killed. A job that began")
            view.say("         10 s ago and that nobody works on is put back, and runs a second time.")
        if todo.is_all_in() and work.is_over(seen):
            return []
        if now_s > _LONGEST_S:
            return [f"not over after {_LONGEST_S:.0f} s; the supervisor's log ends with:\n{supervisor.tail()}"]
        supervisor.wait(_LOOK_AGAIN_S)


def _database(postgres: ThrowawayPostgres, name: str) -> extensions.connection:
    """Create one database from the common template, and a session in it."""
    if name == work.DATABASES[0]:
        postgres.create_database(_TEMPLATE)
        with closing(postgres.connect(_TEMPLATE)) as connection:
            schema.install(connection)
        postgres.make_template(_TEMPLATE)
    postgres.create_database(name, _TEMPLATE)
    return postgres.connect(name)


class Supervisor:
    """The real command as a child process; as a context manager it is always ended."""

    def __init__(self, postgres: ThrowawayPostgres, odoo: StandIn) -> None:
        folder = postgres.root / "demo"
        folder.mkdir(mode=0o700)
        self.conf = folder / "odoo.conf"
        self._log = folder / "supervisor.log"
        port, self.token = free_port(), secrets.token_urlsafe(6)
        self.page = f"http://127.0.0.1:{port}/"
        self.conf.touch(mode=0o600)
        self.conf.write_text(
            _CONF.format(
                host=postgres.host,
                port=postgres.port,
                user=postgres.user,
                password=postgres.password,
                channels=work.CHANNELS,
                odoo_host=odoo.host,
                odoo_port=odoo.port,
                socket=folder / "control.sock",
                monitor_port=port,
                token=self.token,
            )
        )
        self._process = self._spawned(folder)

    def _spawned(self, folder: Path) -> subprocess.Popen[bytes]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(_FOREIGN_ENVIRONMENT)}
        with self._log.open("ab") as log:
            return spawn(
                [sys.executable, "-m", "qjsupervisor", "start", "--config", str(self.conf)],
                death_signal=signal.SIGTERM,
                output=log,
                errors=log,
                env=module_environment({**kept, "RUNTIME_DIRECTORY": str(folder)}),
            )

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_error: object) -> None:
        end(self._process, signal.SIGTERM, grace_s=15.0)

    def wait(self, seconds: float) -> None:
        """Wait; raises DemoError as soon as the supervisor ends, which it should not."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return
        raise DemoError(f"the supervisor ended with exit status {status}:\n{self.tail()}")

    def stop(self) -> Iterator[str]:
        """Send SIGTERM; yields a complaint unless it exits with 0."""
        status = end(self._process, signal.SIGTERM, grace_s=15.0)
        if status:
            yield f"the supervisor stopped with exit status {status}:\n{self.tail()}"

    def tail(self) -> str:
        return last_lines(self._log)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind the stack as Ctrl-C does, so that everything is cleaned up."""

    def unwind(signum: int, _frame: object) -> None:
        sys.exit(128 + signum)

    signals = (signal.SIGTERM, signal.SIGHUP)
    former = [signal.signal(signum, unwind) for signum in signals]
    try:
        yield
    finally:
        for signum, handler in zip(signals, former, strict=True):
            signal.signal(signum, handler)
