"""Decides when a worker that lost its database reconnects, and which supervisor goes first.  Pure.

An administrator who ends our session wants exclusive access, so we stay away for AWAY_S, unless the server was
restarted. After a restart the former leader goes first, because it still holds the requests of running jobs and so
counts them best.
"""

from __future__ import annotations

import math

from ..backoff import Backoff
from ..errors import DatabaseError
from ..postgres.failures import ADMIN_SHUTDOWN

#: As long as OCA's runner: enough time to duplicate, rename or drop a database.
AWAY_S = 5.0
#: How long a standby that lost its connection waits for the former leader after reconnecting.
FORMER_FIRST_S = 6.0
#: Limits the former leader's pauses for a while, so that it returns within that time.
_LEADER_PAUSE_S = 3.0
_LEADER_HASTE_S = 60.0


class Comeback:
    """One worker's reconnection. All times are monotonic seconds."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(first_s=0.5, limit_s=30)
        self._away_until_s = 0.0
        #: Start time of the server that ended our session.
        self._server = ""
        self._haste_until_s = -math.inf
        self._lets_former_first = False

    def lost(self, error: DatabaseError, now_s: float, *, led: bool, stood_by: bool, server: str) -> float:
        """The connection is lost; returns when to reconnect. `server`: its start time, '' if unknown.

        `led`, `stood_by`: our role on that connection.
        """
        self._lets_former_first = self._lets_former_first or stood_by
        if led:
            self._haste_until_s = now_s + _LEADER_HASTE_S
        # Any other error does not come from an administrator: the server was stopped.
        self._away_until_s = now_s + AWAY_S if error.sqlstate == ADMIN_SHUTDOWN and server else 0.0
        self._server = server
        pause_s = self._backoff.next_s()
        return now_s + (min(pause_s, _LEADER_PAUSE_S) if now_s < self._haste_until_s else pause_s)

    def away_s(self, now_s: float) -> float:
        """Seconds left of an administrator's exclusive access; 0: none."""
        return max(0.0, self._away_until_s - now_s)

    def stays_away_until_s(self, server: str, now_s: float) -> float | None:
        """Reconnected for a look: the time until which to stay away again, or None."""
        if now_s >= self._away_until_s or server != self._server:
            self._away_until_s = 0.0
            return None
        return self._away_until_s

    def may_lead_at_s(self, now_s: float) -> float:
        """Reconnected to stay: when the leader lock may be tried. Called once per connection."""
        waits, self._lets_former_first = self._lets_former_first, False
        return now_s + FORMER_FIRST_S if waits else now_s

    def arrived(self) -> None:
        """The database is served. Pauses keep growing until record_success."""
        self._lets_former_first = False

    def record_success(self) -> None:
        """Jobs were claimed, or the database was served for long: pauses start small again."""
        self._backoff.reset()
