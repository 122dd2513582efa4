"""What PostgreSQL counts: by that a porter sees that something was written in a database that it has no connection to.

One connection for each server, to maintenance_db, only while a database there sleeps or is about to. A session reports
what it wrote after its commit: at once, or up to a second later, or where it does nothing more, after ten seconds. So a
number that has not moved says nothing of the last eleven seconds, and one that moves says that something was written.
Before PostgreSQL 15 an idle session may keep its numbers for ever: nothing sleeps there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..backoff import Backoff
from ..errors import DatabaseError
from ..loop import Alarm, Loop
from .link import Link, Script

#: How often the numbers are read.
READ_S = 0.4
#: How long the connection is kept for who is about to sleep.
KEPT_S = 5.0
POSTGRESQL_15 = 150000

#: Rows: (oid of a database, rows that were ever written in it, when these numbers were reset), in no order.
_READ = """
SELECT datid::bigint, tup_inserted + tup_updated, coalesce(extract(epoch FROM stats_reset), 0)::float8
  FROM pg_stat_database WHERE datid > 0
"""

#: Of one database; None: it is not there.
Count = tuple[int, float] | None


class Counters:
    """The numbers of all databases of one server.

    `take` is called with each reading that differs from the one before; `restarted` when the connection was lost and is
    back: the numbers may have begun anew. `failed` is called with the reason when there is no connection.
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
        #: The server is too old for that.
        self.is_unfit = False
        self._link: Link | None = None
        #: Until when the numbers are read though nobody sleeps.
        self._until_s = 0.0
        #: Whether somebody sleeps.
        self.is_needed = False
        self._was_lost = False
        self._backoff = Backoff(first_s=0.2, limit_s=3.0)
        self._alarm = Alarm(loop, self._read)
        self._rows: list[tuple[Any, ...]] = []
        #: Who wants to know the numbers of a reading that begins from now on.
        self._asked: list[Callable[[Mapping[int, Count]], None]] = []

    def ask(self, take: Callable[[Mapping[int, Count]], None]) -> None:
        """Have `take` called with the numbers of the next reading that begins; never where the server is too old."""
        if self.is_unfit:
            return
        self._asked.append(take)
        self._until_s = time.monotonic() + KEPT_S
        if self._link is None and math.isinf(self._alarm.at_s):
            self._read(time.monotonic())

    def close(self) -> None:
        """Close, whatever state it is in."""
        self._alarm.clear()
        self._close()

    def _close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None

    def _read(self, now_s: float) -> None:
        if self._link is None:
            try:
                self._link = Link(
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
        self._link.run(self._reading(self._link))

    def _reading(self, link: Link) -> Script:
        if link.version < POSTGRESQL_15:
            self.is_unfit = True
            self._asked.clear()
            self._close()
            return
        asked, self._asked = self._asked, []
        rows = yield _READ, None
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
        self._link = None
        self._was_lost = True
        self._alarm.set(now_s + self._backoff.next_s())
        self._failed(error)
