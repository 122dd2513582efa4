"""What tests of several kinds use: waiting, databases, configuration files, the supervisor as a process.

Nothing here sleeps for a fixed time: `wait_until` looks again and again until its deadline, and says what
it waited for. Deadlines are for a machine that is busy: a test that is about a duration names or measures it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import psutil

from qjsupervisor.control_client import NotRunning, ask
from qjsupervisor.errors import ProtocolError
from qjsupervisor.testing import jobs
from qjsupervisor.testing.postgres import ThrowawayPostgres

REPOSITORY = Path(__file__).resolve().parent.parent
_LOOK_AGAIN_S = 0.02
#: Settings of whoever runs the tests, which must not reach what is tested.
_FOREIGN_ENVIRONMENT = (
    "ODOO_",
    "QJSUPERVISOR_",
    "PG",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "XDG_RUNTIME_DIR",
    "NOTIFY_SOCKET",
)

T = TypeVar("T")
Sections = Mapping[str, Mapping[str, object]]


def wait_until(predicate: Callable[[], T], message: str | Callable[[], str], timeout_s: float = 30.0) -> T:
    """The predicate's first true value; AssertionError with `message` at the deadline.

    `message` may be a callable, which is asked at the deadline: for what was seen instead.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() >= deadline:
            text = message if isinstance(message, str) else message()
            raise AssertionError(f"not within {timeout_s:g} s: {text}")
        pause.wait(_LOOK_AGAIN_S)


def written(file: Path) -> str:
    """The whole lines that another process wrote so far; '' while there is no file."""
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return text[: text.rfind("\n") + 1]


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs. In a container without init, the dead stay as zombies."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class FakeClock:
    """A monotonic clock that moves when told to; call it for the time in seconds."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> float:
        self.now_s += seconds
        return self.now_s


class Database:
    """One test database, with a session of the role `odoo` in autocommit."""

    def __init__(self, postgres: ThrowawayPostgres, name: str) -> None:
        self.postgres = postgres
        self.name = name
        self.connection = postgres.connect(name)

    def dsn(self, *, superuser: bool = False) -> dict[str, Any]:
        return self.postgres.dsn(self.name, superuser=superuser)

    def reconnect(self) -> None:
        """A new session, where the server was restarted or the old one ended."""
        self.connection.close()
        self.connection = self.postgres.connect(self.name)

    def execute(
        self, statement: str, params: Sequence[object] | Mapping[str, object] | None = None
    ) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, or none."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def insert_jobs(self, count: int, **options: Any) -> list[str]:
        """See qjsupervisor.testing.jobs.insert_jobs."""
        return jobs.insert_jobs(self.connection, count, **options)

    def states(self) -> dict[str, int]:
        return jobs.states(self.connection)

    def state(self, uuid: str) -> str | None:
        return jobs.state(self.connection, uuid)

    def job(self, uuid: str) -> dict[str, Any]:
        """Every column of one job."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT * FROM queue_job WHERE uuid = %s", (uuid,))
            (row,) = cursor.fetchall()
            return {column.name: value for column, value in zip(cursor.description or (), row, strict=True)}

    def wait_for_states(self, timeout_s: float = 30.0, **wanted: int) -> None:
        """Until the numbers of jobs are exactly `wanted`: wait_for_states(done=3, failed=1)."""
        wait_until(
            lambda: self.states() == wanted,
            lambda: f"jobs of {self.name}: wanted {wanted}, there are {self.states()}",
            timeout_s,
        )

    def drop(self) -> None:
        self.connection.close()
        self.postgres.drop_database(self.name)


def render(sections: Sections) -> str:
    """The text of a configuration file; None is left out."""
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {value}" for name, value in options.items() if value is not None]
    return "\n".join(lines) + "\n"


def odoo_conf(
    postgres: ThrowawayPostgres,
    odoo_port: int,
    *,
    db_name: str | None = None,
    channels: str | None = "root:4",
    sections: Sections | None = None,
) -> str:
    """An odoo.conf for a cluster and a stand-in; `sections` add to it and overrule it.

    Without `db_name` databases are discovered. A short rescan, connect and graceful time is no default here:
    say what a test needs in sections={"qjsupervisor": {...}}.
    """
    text: dict[str, dict[str, object]] = {
        "options": {
            "db_host": postgres.host,
            "db_port": postgres.port,
            "db_user": postgres.user,
            "db_password": postgres.password,
            "db_name": db_name,
        },
        "queue_job": {"channels": channels, "host": "127.0.0.1", "port": odoo_port},
        # Clusters of tests are young, and jobs in them are made to look old.
        "qjsupervisor": {"dead_after_restart": 0},
    }
    for section, options in (sections or {}).items():
        text.setdefault(section, {}).update(options)
    return render(text)


def clean_environment(**extra: str) -> dict[str, str]:
    """Our environment without what would configure Odoo, PostgreSQL or the supervisor."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_ENVIRONMENT)}
    return {**kept, "PYTHONUNBUFFERED": "1", **extra}


class Supervisor:
    """The real `qjsupervisor start` in a session of its own, with a log file of JSON lines.

    `conf`: the text of a configuration file, or the path of one. `folder`: where the text is written, and
    the log. Its control socket lies in a directory of its own, with a short name.
    """

    def __init__(
        self,
        conf: str | Path,
        folder: Path,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        label = secrets.token_hex(3)
        self.conf = conf if isinstance(conf, Path) else folder / f"odoo-{label}.conf"
        if isinstance(conf, str):
            self.write_conf(conf)
        self.log = folder / f"supervisor-{label}.log"
        self.runtime = Path(tempfile.mkdtemp(prefix="qjs-run-", dir="/tmp"))
        defaults = {"RUNTIME_DIRECTORY": str(self.runtime), "QJSUPERVISOR_LOG_FORMAT": "json"}
        self.env = clean_environment(**{**defaults, **(env or {})})
        self.arguments = tuple(arguments)
        #: The path of its control socket.
        self.socket = str(self.runtime / "control.sock")
        self._process: subprocess.Popen[bytes] | None = None
        self._ever_seen: dict[int, psutil.Process] = {}

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> Supervisor:
        """Start it; returns at once, see wait_for and wait_ready."""
        self.socket = self._configured_socket()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command("start", *self.arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        return self

    def _configured_socket(self) -> str:
        """Read once, as a test may put its configuration on a file system that hangs."""
        given = re.search(r"(?m)^control_socket = (.+)$", written(self.conf))
        return given[1] if given else self.socket

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "the supervisor was not started"
        return self._process

    @property
    def pid(self) -> int:
        """The master's."""
        return self.process.pid

    def send_signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Until the master has ended; its exit status."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the supervisor still runs after {timeout_s:g} s") from None

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; the exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait(timeout_s)

    def kill(self) -> None:
        """SIGKILL the master only."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """TERM, then KILL everything that it ever started; for teardown."""
        if self._process is not None:
            self.children()
            if self._process.poll() is None:
                self._process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(10)
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            for member in self._ever_seen.values():
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)

    # -- commands --------------------------------------------------------------------------------------

    def command(self, *arguments: str) -> list[str]:
        """The command line of a `qjsupervisor` command for this configuration."""
        name, *rest = arguments
        return [sys.executable, "-m", "qjsupervisor", name, "--config", str(self.conf), *rest]

    def run(self, *arguments: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """Run another command (status, reload, pause, ...) to its end."""
        return subprocess.run(
            self.command(*arguments),
            check=False,
            env=self.env,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def status(self) -> dict[str, Any]:
        """What `qjsupervisor status --json` prints, without a process for each question."""
        try:
            found = ask(self.socket, {"do": "status"}, timeout_s=30)["status"]
        except NotRunning as error:
            raise AssertionError(f"status: {error}; the log ends with:\n{self.tail()}") from None
        assert isinstance(found, dict)
        return found

    def views(self) -> list[dict[str, Any]]:
        """The databases of the status; none while nobody answers."""
        try:
            found: list[dict[str, Any]] = ask(self.socket, {"do": "status"}, timeout_s=30)["status"]["databases"]
        except (NotRunning, ProtocolError):
            found = []
        return found

    def database_status(self, name: str) -> dict[str, Any] | None:
        """The entry of one database in the status; None if it has none."""
        return next((entry for entry in self.status()["databases"] if entry["name"] == name), None)

    def pids(self) -> dict[str, int]:
        """The worker's pid of each database that has a worker."""
        return {entry["name"]: entry["pid"] for entry in self.status()["databases"] if entry["pid"]}

    def children(self) -> list[psutil.Process]:
        """Every process below the master."""
        try:
            found: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._ever_seen.update({process.pid: process for process in found})
        return found

    def titles(self) -> dict[psutil.Process, str]:
        """The title of each process below the master that lives."""
        found = {}
        for process in self.children():
            with suppress(psutil.NoSuchProcess):  # also a zombie
                found[process] = " ".join(process.cmdline())
        return found

    def titled(self, words: str) -> psutil.Process:
        """Wait for a process below the master with these words in its title."""
        (found, *_) = wait_until(
            lambda: [each for each, title in self.titles().items() if words in title],
            lambda: f"{words!r} in {self.titles()}",
        )
        return found

    def wait_ready(self, *names: str, timeout_s: float = 30.0) -> None:
        """Until each of these databases is in state `ready`."""
        wait_until(
            lambda: self.process.poll() is not None or set(names) <= self._ready(),
            lambda: f"ready: wanted {sorted(names)}, there are {sorted(self._ready())}",
            timeout_s,
        )
        assert self.process.poll() is None, f"the supervisor ended with {self.process.poll()}: {self.tail()}"

    def _ready(self) -> set[str]:
        return {view["name"] for view in self.views() if view["state"] == "ready"}

    def write_conf(self, text: str) -> None:
        """Replace the configuration file's text; the running supervisor is not told."""
        self.conf.write_text(text, encoding="utf-8")

    # -- log -------------------------------------------------------------------------------------------

    def log_lines(self) -> list[dict[str, Any]]:
        """The log's lines so far, as they are written: one may stand for several databases."""
        return list(self._lines())

    def log_events(self, event: str | None = None, **keys: object) -> list[dict[str, Any]]:
        """The log's events so far, oldest first: all, or those with this name and these keys."""
        return [entry for entry in self._entries() if _matches(entry, event, keys)]

    def wait_for(self, event: str, *, after: int = 0, timeout_s: float = 30.0, **keys: object) -> dict[str, Any]:
        """The first such event; `after`: only of those that follow so many events (see `mark`)."""

        def found() -> dict[str, Any] | None:
            later = list(self._entries())[after:]
            return next((entry for entry in later if _matches(entry, event, keys)), None)

        wanted = f"log event {event} {keys or ''}"
        entry = wait_until(found, lambda: f"{wanted}; the log ends with:\n{self.tail()}", timeout_s)
        assert entry is not None
        return entry

    def mark(self) -> int:
        """How many events there are: for wait_for(after=...)."""
        return sum(1 for _ in self._entries())

    def _entries(self) -> Iterator[dict[str, Any]]:
        for entry in self._lines():
            yield from _of_each(entry)

    def _lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log_text().splitlines():
            with suppress(ValueError):  # a traceback
                entry = json.loads(line)
                if isinstance(entry, dict):
                    yield entry

    def log_text(self) -> str:
        return written(self.log)

    def tail(self, count: int = 30) -> str:
        return "\n".join(self.log_text().splitlines()[-count:])


def _of_each(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line that stands for several databases as one for each."""
    names = entry.get("names")
    if not isinstance(names, str):
        yield entry
        return
    for name in names.split(", "):
        yield {**entry, "database": name}


def _matches(entry: Mapping[str, object], event: str | None, keys: Mapping[str, object]) -> bool:
    if event is not None and entry.get("event") != event:
        return False
    return all(entry.get(name) == value for name, value in keys.items())
