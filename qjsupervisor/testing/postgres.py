"""A PostgreSQL cluster that is made for one run and leaves nothing behind.

The postmaster is a direct child of the process that makes it, and gets SIGQUIT when that process dies; the
caretaker (see there) then removes the directory. Databases belong to the role `odoo`, which may create
databases and is no superuser, as Odoo's own role is; passwords are random, and asked for on the socket too.

Not for data that anybody wants to keep: fsync is off.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from psycopg2 import extensions, sql

from . import caretaker
from .binaries import checked, find_bindir, usable_bindir
from .processes import DemoError, end, free_port, last_lines, server_account, spawn, temporary_directory

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

_START_S = 60.0
_PORT_ATTEMPTS = 5
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
#: Without fsync, but with synchronous commits: what was committed survives a kill of the server, as tests need.
_SETTINGS: Mapping[str, str | int] = {
    "listen_addresses": "127.0.0.1",
    "max_connections": 300,
    "shared_buffers": "64MB",
    "max_wal_size": "1GB",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum_naptime": "10s",
}


class ThrowawayPostgres:
    """One cluster; as a context manager it is created, started, and removed at the end.

    `root`: the directory to make it in, which must not exist yet; default: one of its own below the
    temporary directory. `port` 0: a free one. `settings` go into postgresql.conf, after our own.
    Start it from a thread that lives as long as the cluster should (see processes.spawn).
    """

    host: Final = "127.0.0.1"
    user: Final = "odoo"
    superuser: Final = "postgres"

    def __init__(
        self,
        root: Path | None = None,
        *,
        port: int = 0,
        bindir: Path | None = None,
        settings: Mapping[str, str | int] | None = None,
    ) -> None:
        self.account = server_account()
        self.root = root or temporary_directory(self.account) / f"qjs-pg-{secrets.token_hex(4)}"
        self.port = port or free_port()
        self._port_is_ours = port == 0
        self._bindir = checked(bindir) if bindir is not None else find_bindir()
        self._settings = {**_SETTINGS, **(settings or {})}
        self.password = secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None
        self._caretaker: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.create()
            self.start()
        except BaseException:  # Ctrl-C included: whatever it is, the directory must not stay
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- life ------------------------------------------------------------------------------------------

    def create(self) -> None:
        """initdb; blocks for about a second."""
        self.root.mkdir(mode=0o700)
        self._caretaker = subprocess.Popen(
            [sys.executable, "-I", caretaker.__file__, str(self.root)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        os.chown(self.root, self.account.uid, self.account.gid)
        self._bindir = usable_bindir(self._bindir, self.account, self.root)
        self._initdb()
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(f"unix_socket_directories = '{self.root}'\n")
            conf.writelines(f"{name} = '{value}'\n" for name, value in self._settings.items())

    def _initdb(self) -> None:
        secret = self.root / "password"
        secret.touch(mode=0o600)
        os.chown(secret, self.account.uid, self.account.gid)
        secret.write_text(self.password)
        command = [str(self._bindir / "initdb"), "-D", str(self.data), "-U", self.superuser]
        command += [f"--pwfile={secret}", "-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync"]
        output = self.root / "initdb.log"
        with output.open("wb") as log:
            process = spawn(
                command,
                death_signal=signal.SIGKILL,
                output=log,
                errors=log,
                account=self.account,
                cwd=self.root,
                env=_environment(),
            )
        status = process.wait()
        secret.unlink()
        if status:
            raise DemoError(f"initdb of {self._bindir} failed:\n{last_lines(output)}")

    def start(self) -> None:
        """Start the server and wait until it answers; after a kill it first recovers."""
        first = not self.log.exists()
        attempts = _PORT_ATTEMPTS if first and self._port_is_ours else 1
        for _ in range(attempts):
            if self._started():
                break
            if attempts > 1 and "Address already in use" in last_lines(self.log):
                self.port = free_port()  # somebody was quicker; nobody was told our port yet
                continue
            raise DemoError(f"PostgreSQL does not start, {self.log}:\n{last_lines(self.log)}")
        if first:
            role = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
            name, password = sql.Identifier(self.user), sql.Literal(self.password)
            self.execute("postgres", role.format(name, password), superuser=True)

    def _started(self) -> bool:
        """Whether it came up; False also when its end came first."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                self._process = self._spawned()
            if self._answers():
                return True
            try:
                self._process.wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            # Backends of a killed postmaster take a moment to notice; only then is its memory free.
            if "pre-existing shared memory block" not in last_lines(self.log):
                return False
        return False

    def _spawned(self) -> subprocess.Popen[bytes]:
        command = [str(self._bindir / "postgres"), "-D", str(self.data), "-p", str(self.port)]
        with self.log.open("ab") as log:
            return spawn(
                command,
                death_signal=signal.SIGQUIT,
                output=log,
                errors=log,
                account=self.account,
                cwd=self.root,
                env=_environment(),
            )

    def _answers(self) -> bool:
        try:
            self.connect("postgres", superuser=True).close()
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self, mode: str = "fast") -> None:
        """Shut down: "smart" waits for clients, "fast" ends their sessions, "immediate" is a crash."""
        if self._process is not None:
            self.thaw()
            end(self._process, _STOP_SIGNALS[mode], grace_s=20.0)

    def kill(self) -> None:
        """SIGKILL the postmaster: its backends end by themselves."""
        if self._process is not None:
            self.thaw()  # what is stopped would never notice that its postmaster is gone
            end(self._process, signal.SIGKILL, grace_s=20.0)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP every process of the server: connections stay open, and silent."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, signum: signal.Signals) -> None:
        for pid in caretaker.cluster_processes(self.root):
            with suppress(ProcessLookupError):  # a session that ended meanwhile
                os.kill(pid, signum)

    def close(self) -> None:
        """End the server, whatever state it is in, and remove its directory; may be called twice."""
        if self._process is not None:
            caretaker.end_cluster(self.root)
            end(self._process, signal.SIGQUIT, grace_s=5.0)  # where it had not even written its pid yet
            self._process = None
        shutil.rmtree(self.root, ignore_errors=True)
        if self._caretaker is not None and self._caretaker.stdin is not None:
            self._caretaker.stdin.close()  # it removes what is left, if anything is
            self._caretaker.wait()
            self._caretaker = None

    # -- looks -----------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def pid(self) -> int:
        """The postmaster's; DemoError while none runs."""
        if self._process is None or self._process.poll() is not None:
            raise DemoError("PostgreSQL does not run")
        return self._process.pid

    def dsn(self, database: str, *, superuser: bool = False) -> dict[str, Any]:
        """Keyword arguments for psycopg2.connect."""
        role = self.superuser if superuser else self.user
        where: dict[str, Any] = {"host": self.host, "port": self.port, "dbname": database}
        return where | {"user": role, "password": self.password, "connect_timeout": 10}

    # -- use -------------------------------------------------------------------------------------------

    def connect(self, database: str, *, superuser: bool = False) -> extensions.connection:
        """A new session in autocommit, which the caller closes."""
        connection: extensions.connection = psycopg2.connect(**self.dsn(database, superuser=superuser))
        connection.autocommit = True
        return connection

    def execute(
        self,
        database: str,
        statement: str | sql.Composable,
        params: Sequence[object] | Mapping[str, object] | None = None,
        *,
        superuser: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Run one statement in a session of its own; its rows, or none."""
        session = self.connect(database, superuser=superuser)
        with closing(session), session.cursor() as cursor:
            cursor.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str | None = None) -> None:
        """A database of the role `odoo`; `template` must have no session."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(self.user), sql.Identifier(template or "template0")
        )
        self.execute("postgres", statement, superuser=True)

    def make_template(self, name: str) -> None:
        """Turn a database into a template: nobody connects to it, no runner discovers it."""
        statement = sql.SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false")
        self.execute("postgres", statement.format(sql.Identifier(name)), superuser=True)

    def drop_database(self, name: str) -> None:
        """Drop it, sessions and all; none by that name is fine."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        self.execute("postgres", statement, superuser=True)


def _environment() -> dict[str, str]:
    """Messages in English (some are looked for), whatever the user's language."""
    return {**os.environ, "LC_ALL": "C"}
