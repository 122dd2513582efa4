"""Logs the results of scans: one line per change, not per scan, and one for all databases of a server.

A PostgreSQL that goes down is reported by the worker that notices first (worker/outage.py), and here only if no worker
runs that could.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..logs import get_logger
from .database_log import DatabaseLog
from .fleet import Fleet

_OF_SERVER = " cannot be reached: "


class ScanLog:
    """Remembers what was logged. `config` is an argument, because a reload replaces it."""

    def __init__(self, fleet: Fleet, database_log: DatabaseLog) -> None:
        self._fleet = fleet
        #: Servers reported here as down.
        self._down: set[str] = set()
        self._error: str | None = None
        #: Unserved databases without their own line, because their server has one.
        self._quiet: set[str] = set()
        self._database_log = database_log
        self._log = get_logger()

    def take(self, message: Mapping[str, Any], config: Any) -> None:
        """Apply what a message of the scout says about servers."""
        server = message.get("server_down")
        if server is not None:
            self._note_down(str(server), str(message.get("reason") or message.get("error")))
        elif not self._down:
            return
        elif "database" in message and message.get("verdict") != "unreachable":
            self._note_up(config.server_of(str(message["database"])))
        elif "listed" in message and not config.db_names:
            self._note_up(config.server_of(config.maintenance_db))

    def failed(self, reason: str, *, of_server: bool) -> None:
        """The databases could not be listed. `of_server`: because their PostgreSQL is down."""
        if not of_server and reason != self._error:
            self._log.error("scan_failed", reason=reason)
        self._error = reason

    def completed(self) -> None:
        """A scan completed, so the next failure is news."""
        self._error = None

    def unserved(self, database: str, reason: str, *, of_server: bool, is_error: bool = False) -> None:
        """A database has no worker, for a new reason. `is_error`: somebody must act."""
        if of_server:
            self._quiet.add(database)
        else:
            self._quiet.discard(database)
            log = self._database_log.of(database)
            (log.error if is_error else log.warning)("database_unserved", reason=reason)

    def cleared(self, database: str) -> None:
        """An unserved database has a worker now, or no longer exists."""
        log = self._database_log.of(database)
        note = log.debug if database in self._quiet else log.info
        self._quiet.discard(database)
        note("database_cleared")

    def _note_down(self, server: str, reason: str) -> None:
        workers = self._fleet.workers.values()
        if server in self._down or any(w.pid is not None and w.settings.server == server for w in workers):
            return
        self._down.add(server)
        self._log.error("postgresql_down", server=server, reason=reason.partition(_OF_SERVER)[2] or reason)

    def _note_up(self, server: str) -> None:
        if server in self._down:
            self._down.discard(server)
            self._log.info("postgresql_recovered", server=server)
