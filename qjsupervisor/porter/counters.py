"""Reads PostgreSQL's counters, by which a porter notices writes to databases it has no connection to.

Uses one connection per server, to maintenance_db, only while a database there sleeps or is about to. A session reports
its writes after the commit: at once, up to a second later, or, if it then stays idle, after ten seconds. So an
unchanged number says nothing about the last eleven seconds, while a changed one proves a write. Before PostgreSQL 15
an idle session may never report its writes, so nothing sleeps there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..backoff import Backoff
from ..errors import DatabaseError
from ..loop import Alarm, Loop
from ..postgres.async_session import AsyncSession, Script

#: Interval of the readings.
READ_S = 0.4
#: How long the connection is kept for a database about to sleep.
KEPT_S = 5.0
POSTGRESQL_15 = 150000

#: Rows: (oid of a database, rows ever written in it, when its counters were reset), unordered.
READ = """
SELECT datid::bigint, tup_inserted + tup_updated, coalesce(extract(epoch FROM stats_reset), 0)::float8
  FROM pg_stat_database WHERE datid > 0
"""

#: (rows written, reset time) of one database; None if it does not exist.
Count = tuple[int, float] | None


class Counters:
    """The counters of all databases of one server.

    `take` is called with each reading that differs from the previous one; `restarted` when the connection is back after
    a loss, since the counters may have been reset; `failed` with the reason when there is no connection.
    """

    def __init__(
        self,
        server: str,
        dsn: Mapping[str, Any],
        connect_s: float,
        loop: Loop,
        *,
        take: Callable[[Mapping[int, Count]], None],
        restarted: Callable[[], None],
        failed: Callable[[DatabaseError], None],
    ) -> None:
        self._server = server
        self._dsn = dict(dsn)
        self._connect_s = connect_s
        self._loop = loop
        self._take, self._restarted, self._failed = take, restarted, failed
        #: The server is older than PostgreSQL 15.
        self.is_unfit = False
        self._session: AsyncSession | None = None
        #: Until when counters are read although no database sleeps.
        self._until_s = 0.0
        #: Whether any database sleeps.
        self.is_needed = False
        self._was_lost = False
        self._backoff = Backoff(first_s=0.2, limit_s=3.0)
        self._alarm = Alarm(loop, self._read)
        self._rows: list[tuple[Any, ...]] = []
        #: Callbacks for the next reading that begins.
        self._asked: list[Callable[[Mapping[int, Count]], None]] = []

    def ask(self, take: Callable[[Mapping[int, Count]], None]) -> None:
        """Call `take` with the next reading that begins; never if the server is too old."""
        if self.is_unfit:
            return
        self._asked.append(take)
        self._until_s = time.monotonic() + KEPT_S
        if self._session is None and math.isinf(self._alarm.at_s):
            self._read(time.monotonic())

    def close(self) -> None:
        """Close, in whatever state."""
        self._alarm.clear()
        self._close()

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _read(self, now_s: float) -> None:
        if self._session is None:
            try:
                self._session = AsyncSession(
                    str(self._dsn.get("dbname")),
                    self._dsn,
                    self._loop,
                    self._connect_s,
                    server=self._server,
                    notified=lambda _notify: None,
                    on_lost=self._lost,
                )
            except DatabaseError as error:
                self._lost(error, now_s)
                return
        self._session.run(self._reading(self._session))

    def _reading(self, session: AsyncSession) -> Script:
        if session.version < POSTGRESQL_15:
            self.is_unfit = True
            self._asked.clear()
            self._close()
            return
        asked = self._asked[:]
        rows = yield READ, None
        del self._asked[: len(asked)]  # only now: if the connection is lost, the next reading is for them
        self._backoff.reset()
        if self._was_lost:
            self._was_lost, self._rows = False, []
            self._restarted()
        if rows != self._rows or asked:
            self._rows = rows
            counts: dict[int, Count] = {oid: (count, reset_s) for oid, count, reset_s in rows}
            for take in asked:
                take(counts)
            self._take(counts)
        if self.is_needed or time.monotonic() < self._until_s:
            self._alarm.set(time.monotonic() + READ_S)
        else:
            self._close()

    def _lost(self, error: DatabaseError, now_s: float) -> None:
        self._session = None
        self._was_lost = True
        self._alarm.set(now_s + self._backoff.next_s())
        self._failed(error)
