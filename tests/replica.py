"""A streaming replica of a throw-away cluster, made by pg_basebackup."""

from __future__ import annotations

import os
import subprocess

from qjsupervisor.testing.postgres import ThrowawayPostgres
from qjsupervisor.testing.processes import DemoError


class Replica(ThrowawayPostgres):
    """Follows `primary` from its start on, until it is promoted; roles and passwords are the primary's."""

    def __init__(self, primary: ThrowawayPostgres) -> None:
        super().__init__()
        self.primary = primary
        self.password = primary.password

    def _initdb(self) -> None:
        primary = self.primary.dsn("postgres", superuser=True)
        command = [str(self._bindir / "pg_basebackup"), "--no-password", "--checkpoint=fast", "--write-recovery-conf"]
        command += ["-h", primary["host"], "-p", str(primary["port"]), "-U", primary["user"], "-D", str(self.data)]
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, "PGPASSWORD": self.password},
            user=self.account.uid,
            group=self.account.gid,
            extra_groups=[],
        )
        if done.returncode:
            raise DemoError(done.stderr)

    def start(self) -> None:
        self.log.touch()  # roles are there already
        os.chown(self.log, self.account.uid, self.account.gid)
        super().start()

    def promote(self) -> None:
        """Make it a primary; returns when it is one."""
        self.execute("postgres", "SELECT pg_promote(true, 30)", superuser=True)
