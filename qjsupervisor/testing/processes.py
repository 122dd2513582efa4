"""Child processes of the demo and the tests, none of which outlives its parent."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import QJSupervisorError
from . import launch

#: sun_path holds 107 bytes; our names and PostgreSQL's take up to 27 of them.
_LONGEST_DIRECTORY = 80


class DemoError(QJSupervisorError):
    """Part of the demo's environment (PostgreSQL, stand-in Odoo, supervisor) does not work."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user account of this machine."""

    name: str
    uid: int
    gid: int

    def may_read(self, path: Path) -> bool:
        """Whether it can reach and read `path`, and execute it if it is a program."""
        needed = 0o5 if path.stat().st_mode & 0o111 else 0o4
        return self._has(path, needed) and self.may_enter(path.parent)

    def may_enter(self, directory: Path) -> bool:
        """Whether it can reach files in `directory`."""
        return all(self._has(step, 0o1) for step in (directory, *directory.parents))

    def _has(self, path: Path, bits: int) -> bool:
        status = path.stat()
        shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
        return (status.st_mode >> shift) & bits == bits


def server_account() -> Account:
    """The account for a server that refuses root: ours, or if we are root, `postgres` or else `nobody`."""
    if os.getuid() != 0:
        return Account(pwd.getpwuid(os.getuid()).pw_name, os.getuid(), os.getgid())
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise DemoError(
        "PostgreSQL refuses to run as root, and there is no user 'postgres' or 'nobody' to run it as: "
        "add one, or run this as an ordinary user"
    )


def temporary_directory(account: Account) -> Path:
    """The usual temporary directory, or another if `account` cannot reach it or socket paths would be too long."""
    usual = Path(tempfile.gettempdir())
    if account.may_enter(usual) and len(os.fsencode(usual)) < _LONGEST_DIRECTORY:
        return usual
    return Path("/tmp")


def spawn(
    command: Sequence[str],
    *,
    death_signal: int,
    output: IO[bytes] | int,
    errors: IO[bytes] | int | None = None,
    account: Account | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a child in its own session, so that only we receive Ctrl-C.

    The child receives `death_signal` when the calling thread ends, so that thread must live as long as the child.
    `output`, `errors`: its standard output and error (None: ours). If we are root, the child runs as `account`.
    """
    uid, gid = (account.uid, account.gid) if account and os.getuid() == 0 else (-1, -1)
    numbers = (int(death_signal), os.getpid(), uid, gid)
    return subprocess.Popen(
        [sys.executable, "-I", launch.__file__, *map(str, numbers), *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=errors,
        cwd=cwd,
        env=env,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes], signum: int, grace_s: float) -> int:
    """Send a child `signum`, and SIGKILL after `grace_s`; blocks until it has ended; returns its exit status."""
    if process.poll() is None:
        process.send_signal(signum)
        process.send_signal(signal.SIGCONT)  # a stopped process would not react
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def last_lines(path: Path, count: int = 15) -> str:
    """The end of a log file, for an error message."""
    if not path.exists():
        return "(no log)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-count:])
