"""A PostgreSQL cluster created for one run that leaves nothing behind.

The postmaster is a direct child of the process that creates it and receives SIGQUIT when that process dies; the
caretaker then removes the directory. Databases belong to the role `odoo`, which like Odoo's own role may create
databases and is no superuser. Passwords are random and required on the socket too. Not for data worth keeping:
fsync is off.
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
#: No fsync, but synchronous commits: tests need committed data to survive a kill of the server.
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

    `root`: its directory, which must not exist yet; default: a new one below the temporary directory. `port` 0: a free
    one. `settings` are appended to postgresql.conf. Start it from a thread that lives as long as the cluster should
    (see processes.spawn).
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
        except BaseException:  # including Ctrl-C: the directory must not stay
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- life ------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Run initdb; blocks for about a second."""
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
        """Start the server and wait until it answers; after a kill it recovers first."""
        first = not self.log.exists()
        attempts = _PORT_ATTEMPTS if first and self._port_is_ours else 1
        for _ in range(attempts):
            if self._started():
                break
            if attempts > 1 and "Address already in use" in last_lines(self.log):
                self.port = free_port()  # the port was taken; nobody has been told ours yet
                continue
            raise DemoError(f"PostgreSQL does not start, {self.log}:\n{last_lines(self.log)}")
        if first:
            role = sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}")
            name, password = sql.Identifier(self.user), sql.Literal(self.password)
            self.execute("postgres", role.format(name, password), superuser=True)

    def _started(self) -> bool:
        """Whether the server came up; False if it ended first."""
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
            # Backends of a killed postmaster take a moment to notice and to release its shared memory.
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
        """Shut down: "smart" waits for clients, "fast" ends their sessions, "immediate" simulates a crash."""
        if self._process is not None:
            self.thaw()
            end(self._process, _STOP_SIGNALS[mode], grace_s=20.0)

    def kill(self) -> None:
        """SIGKILL the postmaster; its backends end by themselves."""
        if self._process is not None:
            self.thaw()  # a stopped process would not notice that its postmaster is gone
            end(self._process, signal.SIGKILL, grace_s=20.0)

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def freeze(self) -> None:
        """SIGSTOP every process of the server: connections stay open but silent."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, signum: signal.Signals) -> None:
        for pid in caretaker.cluster_processes(self.root):
            with suppress(ProcessLookupError):  # a session that ended meanwhile
                os.kill(pid, signum)

    def close(self) -> None:
        """End the server in whatever state, and remove its directory; may be called twice."""
        if self._process is not None:
            caretaker.end_cluster(self.root)
            end(self._process, signal.SIGQUIT, grace_s=5.0)  # it may not have written its pid yet
            self._process = None
        shutil.rmtree(self.root, ignore_errors=True)
        if self._caretaker is not None and self._caretaker.stdin is not None:
            self._caretaker.stdin.close()  # it removes anything left
            self._caretaker.wait()
            self._caretaker = None

    # -- inspection ------------------------------------------------------------------------------------

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def pid(self) -> int:
        """The postmaster's pid. Raises DemoError if none runs."""
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
        """Open a session in autocommit; the caller closes it."""
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
        """Run one statement in its own session; returns its rows, if any."""
        session = self.connect(database, superuser=superuser)
        with closing(session), session.cursor() as cursor:
            cursor.execute(statement, params)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database owned by `odoo`; `template` must have no open session."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(self.user), sql.Identifier(template or "template0")
        )
        self.execute("postgres", statement, superuser=True)

    def make_template(self, name: str) -> None:
        """Turn a database into a template that nobody connects to and no runner discovers."""
        statement = sql.SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false")
        self.execute("postgres", statement.format(sql.Identifier(name)), superuser=True)

    def drop_database(self, name: str) -> None:
        """Drop a database and its sessions, if it exists."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        self.execute("postgres", statement, superuser=True)


def _environment() -> dict[str, str]:
    """An environment with English messages, some of which are searched for."""
    return {**os.environ, "LC_ALL": "C"}
