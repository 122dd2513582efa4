"""The stand-in Odoo's PostgreSQL sessions: one per running job, some kept for reuse."""

from __future__ import annotations

import select
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2

_FEATURES = """
SELECT to_regclass('queue_job') IS NOT NULL,
       to_regclass('queue_job_lock') IS NOT NULL,
       EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = to_regclass('queue_job') AND attname = 'dependencies' AND NOT attisdropped)
"""


class OdooSession:
    """One session in autocommit, and the features of its database. For one thread at a time."""

    def __init__(self, dsn: str, database: str) -> None:
        self.database = database
        self._connection = psycopg2.connect(dsn, dbname=database, connect_timeout=10)
        self._connection.autocommit = True
        self._cursor = self._connection.cursor()
        self.has_jobs, self.has_lock_table, self.has_dependencies = self.rows(_FEATURES)[0]

    def execute(self, statement: str, params: Mapping[str, object] | None = None) -> None:
        self._cursor.execute(statement, params)

    def rows(self, statement: str, params: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        self._cursor.execute(statement, params)
        return self._cursor.fetchall()

    def is_alive(self) -> bool:
        """Whether the server has not ended the session; an idle one has nothing to read."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """End the session as its process' death would: an open transaction is rolled back."""
        with suppress(psycopg2.Error):
            self._connection.close()


class Sessions:
    """Lends sessions and keeps at most `idle_limit` idle ones; the least recently used database's go first."""

    def __init__(self, dsn: str, idle_limit: int) -> None:
        self._dsn = dsn
        self._idle_limit = idle_limit
        self._lock = threading.Lock()
        self._idle: OrderedDict[str, list[OdooSession]] = OrderedDict()
        self._idle_count = 0

    @contextmanager
    def borrowed(self, database: str) -> Iterator[OdooSession]:
        """A working session; closed if the block raises. Raises psycopg2.Error if there is no such database."""
        session = self._taken(database) or OdooSession(self._dsn, database)
        keep = False
        try:
            yield session
            keep = session.has_jobs  # else check again next time: queue_job may be installed by then
        finally:
            if keep:
                self._put(session)
            else:
                session.close()

    def forget(self, database: str | None = None) -> None:
        """Close the idle sessions of one database, or all."""
        with self._lock:
            names = list(self._idle) if database is None else [database]
            closed = [session for name in names for session in self._idle.pop(name, [])]
            self._idle_count -= len(closed)
        for session in closed:
            session.close()

    def _taken(self, database: str) -> OdooSession | None:
        while True:
            with self._lock:
                idle = self._idle.get(database)
                if not idle:
                    return None
                self._idle_count -= 1
                session = idle.pop()
            if session.is_alive():
                return session
            session.close()

    def _put(self, session: OdooSession) -> None:
        with self._lock:
            self._idle.setdefault(session.database, []).append(session)
            self._idle.move_to_end(session.database)
            self._idle_count += 1
            surplus = self._oldest() if self._idle_count > self._idle_limit else None
        if surplus is not None:
            surplus.close()

    def _oldest(self) -> OdooSession:
        """Remove a session of the least recently used database; the caller holds the lock."""
        while True:
            name, idle = next(iter(self._idle.items()))
            if idle:
                self._idle_count -= 1
                return idle.pop(0)
            del self._idle[name]
