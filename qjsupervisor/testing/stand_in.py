"""Starts and controls the stand-in Odoo, for the demo and the tests."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, cast

from .odoo_http import EVERYBODY, OdooMode
from .odoo_stats import Stats
from .postgres import ThrowawayPostgres
from .processes import DemoError, end, last_lines, spawn

_START_S = 15.0
_ANSWER_S = 30.0
#: The directory `qjsupervisor` is imported from, for child processes.
IMPORT_ROOT = Path(__file__).resolve().parent.parent.parent


def module_environment(env: Mapping[str, str]) -> dict[str, str]:
    """`env` extended so that `python -m qjsupervisor...` finds this package from any directory."""
    paths = [str(IMPORT_ROOT), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, "PYTHONPATH": os.pathsep.join(paths)}


class StandIn:
    """One stand-in Odoo; as a context manager it is started, and stopped at the end.

    `workers`: jobs at once. `auth`: "user:password" required of requests. `tls`: certificate and key file.
    `series`: read the database as Odoo 18 (query) or 19 (header); None: either.
    `log`: file for its error output; default: our standard error. See processes.spawn for the thread.
    """

    host: Final = "127.0.0.1"

    def __init__(
        self,
        postgres: ThrowawayPostgres,
        *,
        port: int = 0,
        workers: int = 8,
        auth: str | None = None,
        tls: tuple[Path, Path] | None = None,
        series: int | None = None,
        log: Path | None = None,
    ) -> None:
        self._postgres = postgres
        self.port = port
        self.workers = workers
        self._auth = auth
        self._tls = tls
        self._series = series
        self._log = log
        self._control_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> StandIn:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()

    # -- life ------------------------------------------------------------------------------------------

    def start(self) -> StandIn:
        """Start and wait until it listens: on a free port at first, later on the same one."""
        self._process = self._spawned()
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _START_S)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self.stop()
            why = "" if self._log is None else f":\n{last_lines(self._log)}"
            raise DemoError(f"the stand-in Odoo does not start{why}")
        ports = json.loads(line)
        self.port, self._control_port = ports["port"], ports["control_port"]
        return self

    def _spawned(self) -> subprocess.Popen[bytes]:
        with ExitStack() as stack:
            errors = None if self._log is None else stack.enter_context(self._log.open("ab"))
            return spawn(
                self._command(),
                death_signal=signal.SIGKILL,
                output=subprocess.PIPE,
                errors=errors,
                env=self._environment(),
            )

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "qjsupervisor.testing.odoo", "--host", self.host]
        command += ["--port", str(self.port), "--workers", str(self.workers)]
        if self._auth is not None:
            command += ["--auth", self._auth]
        if self._series is not None:
            command += ["--series", str(self._series)]
        if self._tls is not None:
            certificate, key = self._tls
            command += ["--tls-cert", str(certificate), "--tls-key", str(key)]
        return command

    def _environment(self) -> dict[str, str]:
        server = self._postgres
        where = {"PGHOST": server.host, "PGPORT": str(server.port)}
        who = {"PGUSER": server.user, "PGPASSWORD": server.password}
        return module_environment({**os.environ, **where, **who, "PGAPPNAME": "odoo", "PGGSSENCMODE": "disable"})

    def stop(self) -> None:
        """End it as a kill would: running jobs stay `started`. May be called twice."""
        if self._process is not None:
            end(self._process, signal.SIGTERM, grace_s=5.0)
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None

    def restart(self) -> None:
        """Stop and start on the same port, with modes and statistics reset."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: the kernel still accepts connections, but nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    # -- statistics and orders -------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        if self._process is None:
            raise DemoError("the stand-in Odoo does not run")
        return self._process.pid

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    def stats(self) -> Stats:
        """All statistics since its start or the last `reset`."""
        return cast(Stats, self._ask("stats"))

    def reset(self) -> None:
        """Forget what is over; running and waiting jobs still count."""
        self._ask("reset")

    def set_mode(self, database: str, mode: OdooMode | str, seconds: float = 1.0) -> None:
        """Treat a database's requests this way from now on; "*": all databases without their own mode."""
        self._ask("mode", database=database, mode=OdooMode(mode).value, seconds=str(seconds))

    def kill_worker(self, uuid: str | None = None) -> str | None:
        """Kill the worker that runs this job, or any busy one; returns its job's uuid, or None."""
        killed = self._ask("kill_worker", **({} if uuid is None else {"uuid": uuid}))["killed"]
        return None if killed is None else str(killed)

    def forget(self, database: str | None = None) -> None:
        """Close its idle sessions of one database, or all."""
        self._ask("forget", **({} if database is None else {"database": database}))

    def _ask(self, action: str, **query: str) -> dict[str, Any]:
        address = f"http://{self.host}:{self._control_port}/_standin/{action}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=_ANSWER_S) as answer:
            return cast(dict[str, Any], json.load(answer))


__all__ = ["EVERYBODY", "IMPORT_ROOT", "OdooMode", "StandIn", "Stats", "module_environment"]
