"""An outage of the PostgreSQL server: one worker probes it, and all reconnect when it is back.

An outage concerns every database of the server, so its state is in the shared table (table/servers.py), and the log
has one line when the server goes down and one when it is back, whichever worker notices first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from ..errors import DatabaseError, DatabaseGone, ServerDown
from ..states import ServerVerdict
from ..table.servers import ServerHealth

#: Workers reconnect spread over this time, to spare the server and each other.
SPREAD_S = 1.0
#: Spreads neighbouring slots far apart.
_GOLDEN = 0.618034


class Outage:
    """One worker's view of its server. `log`: for events that concern all databases."""

    def __init__(self, health: ServerHealth, server: str, slot: int, log: FilteringBoundLogger) -> None:
        self._health = health
        self._server = server
        self._spread_s = slot * _GOLDEN % 1 * SPREAD_S
        self._log = log
        self._waits = False
        self._began_ns = 0
        #: When the connection was lost (monotonic); infinity while there is one.
        self._lost_s = math.inf

    def lost(self) -> None:
        """The connection was lost, or an attempt failed; why is not known yet."""
        self._lost_s = min(self._lost_s, time.monotonic())

    def connect(self, connect: Callable[[], None], now_s: float) -> bool:
        """Connect, unless the server is down and another worker probes it. Raises DatabaseError.

        True: the server was down since the connection was lost, so that explains the loss.
        """
        self._began_ns = time.monotonic_ns()
        if self._health.is_down and not self._health.take_probe():
            raise ServerDown("", self._server, self._health.reason)
        try:
            connect()
        except DatabaseError as error:
            if error.refused or isinstance(error, DatabaseGone):
                self._reached(now_s)
            elif not isinstance(error, ServerDown) and (
                self._health.is_down or self._health.since_s > self._began_ns / 1e9
            ):
                # It broke while the server goes down or comes back. Another one tells whether only this database does.
                self._health.postpone()
                raise ServerDown("", self._server, self._health.reason or "it has just come back") from error
            raise
        self._reached(now_s)
        lost_s, self._lost_s = self._lost_s, math.inf
        return self._health.since_s > lost_s

    def _reached(self, now_s: float) -> None:
        """The server accepted the connection, or refused it because of this database."""
        self._waits = False
        down_s = now_s - self._health.since_s
        if self._health.recover():
            self._log.info("postgresql_recovered", server=self._server, down_s=round(down_s, 1))

    def failed(self, error: ServerDown) -> None:
        """Connecting failed because of the server."""
        went_down = self._health.probed(self._began_ns, error.reason) is ServerVerdict.WENT_DOWN
        if went_down or self._health.failed(error.reason, self._began_ns):
            self._log.error("postgresql_down", server=self._server, reason=error.reason)
        self._waits = True

    def next_try_s(self, now_s: float) -> float:
        """When to try while the server is down; the table wakes us if it is back earlier."""
        due_s = self._health.probe_due_s()
        return now_s + SPREAD_S if due_s is None else due_s

    def comeback_s(self, now_s: float) -> float:
        """When to reconnect because the server is back; infinity if it is not."""
        if not self._waits or self._health.is_down:
            return math.inf
        self._waits = False
        return now_s + self._spread_s

    def close(self) -> None:
        """Let another worker probe the server."""
        self._health.release()
