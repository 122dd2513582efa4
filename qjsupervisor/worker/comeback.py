"""When a worker that lost its database tries it again, and who goes first.  Pure.

An administrator who ends our session wants the database for himself: we stay away for AWAY_S, unless the server was
restarted. After a restart the former leader goes first: the jobs that its Odoo still runs are counted best by the
supervisor that holds their requests.
"""

from __future__ import annotations

import math

from ..backoff import Backoff
from ..errors import DatabaseError
from ..postgres.failures import ADMIN_SHUTDOWN

#: As OCA's runner: time enough to duplicate, rename or drop a database.
AWAY_S = 5.0
#: What a standby that lost its connection leaves to the former leader, from the moment it is connected again.
FORMER_FIRST_S = 6.0
#: The former leader's pauses are no longer than this for a while, so that it is there within that time.
_LEADER_PAUSE_S = 3.0
_LEADER_HASTE_S = 60.0


class Comeback:
    """One worker's way back. Monotonic seconds."""

    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(first_s=0.5, limit_s=30)
        self._away_until_s = 0.0
        #: When the server was started whose session was ended.
        self._server = ""
        self._haste_until_s = -math.inf
        self._lets_former_first = False

    def lost(self, error: DatabaseError, now_s: float, *, led: bool, stood_by: bool, server: str) -> float:
        """The connection is lost; when to try again. `server`: when it was started, '' where that is not known.

        `led`, `stood_by`: what we were on that connection.
        """
        self._lets_former_first = self._lets_former_first or stood_by
        if led:
            self._haste_until_s = now_s + _LEADER_HASTE_S
        # Anything else is no word of an administrator's: the server was stopped.
        self._away_until_s = now_s + AWAY_S if error.sqlstate == ADMIN_SHUTDOWN and server else 0.0
        self._server = server
        pause_s = self._backoff.next_s()
        return now_s + (min(pause_s, _LEADER_PAUSE_S) if now_s < self._haste_until_s else pause_s)

    def away_s(self, now_s: float) -> float:
        """For how much longer an administrator has the database for himself; 0: he has not."""
        return max(0.0, self._away_until_s - now_s)

    def stays_away_until_s(self, server: str, now_s: float) -> float | None:
        """Connected again, for a look: until when to leave once more, if at all."""
        if now_s >= self._away_until_s or server != self._server:
            self._away_until_s = 0.0
            return None
        return self._away_until_s

    def may_lead_at_s(self, now_s: float) -> float:
        """Connected again, to stay: when the leader lock may be tried. Asked once a connection."""
        waits, self._lets_former_first = self._lets_former_first, False
        return now_s + FORMER_FIRST_S if waits else now_s

    def arrived(self) -> None:
        """It is served. The pauses go on growing until that is known to be of use."""
        self._lets_former_first = False

    def record_success(self) -> None:
        """Jobs were claimed, or it was served for long."""
        self._backoff.reset()
