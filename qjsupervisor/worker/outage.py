"""The PostgreSQL of one worker's database, when it is down: one worker tries it, all come back when it is there.

That holds for every database of that server, so the shared table keeps it (table/servers.py), and the log has one line
when it goes and one when it is back, whichever worker sees that first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from ..errors import DatabaseError, DatabaseGone, ServerDown
from ..states import ServerVerdict
from ..table.servers import ServerHealth

#: Within which all come back: at once they would hold up each other, and the server.
SPREAD_S = 1.0
#: Neighbours in the table come back far apart.
_GOLDEN = 0.618034


class Outage:
    """What one worker knows of its server, and does about it. `log`: for what concerns all databases."""

    def __init__(self, health: ServerHealth, server: str, slot: int, log: FilteringBoundLogger) -> None:
        self._health = health
        self._server = server
        self._spread_s = slot * _GOLDEN % 1 * SPREAD_S
        self._log = log
        self._waits = False
        self._began_ns = 0

    def connect(self, connect: Callable[[], None], now_s: float) -> None:
        """Connect, unless another worker is to find out first whether the server is there. Raises DatabaseError."""
        self._began_ns = time.monotonic_ns()
        if self._health.is_down and not self._health.take_probe():
            raise ServerDown("", self._server, self._health.reason)
        try:
            connect()
        except DatabaseError as error:
            if error.refused or isinstance(error, DatabaseGone):
                self._reached(now_s)
            raise
        self._reached(now_s)

    def _reached(self, now_s: float) -> None:
        """The server let us in, or refused this database for its own sake."""
        self._waits = False
        down_s = now_s - self._health.since_s
        if self._health.recover():
            self._log.info("postgresql_recovered", server=self._server, down_s=round(down_s, 1))

    def failed(self, error: ServerDown) -> None:
        """A connect came to nothing for the server's sake."""
        went_down = self._health.probed(self._began_ns, error.reason) is ServerVerdict.WENT_DOWN
        if went_down or self._health.failed(error.reason, self._began_ns):
            self._log.error("postgresql_down", server=self._server, reason=error.reason)
        self._waits = True

    def next_try_s(self, now_s: float) -> float:
        """When to try while the server is down; the table wakes us if it is back before."""
        due_s = self._health.probe_due_s()
        return now_s + SPREAD_S if due_s is None else due_s

    def comeback_s(self, now_s: float) -> float:
        """When to try because the server is back; infinity: there is no news."""
        if not self._waits or self._health.is_down:
            return math.inf
        self._waits = False
        return now_s + self._spread_s

    def close(self) -> None:
        """Somebody else is to try it."""
        self._health.release()
