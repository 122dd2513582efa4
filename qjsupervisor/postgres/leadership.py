"""Becoming the leader of a database: queue_job's leader lock, and how to deal with former sessions of our own.

Each of our sessions carries our mark (a shared advisory lock) from its first statement on. If the leader lock is
taken, one query of pg_locks tells whether a marked session holds it. Such a session is terminated and waited for: the
server may take seconds to end it, and might never notice by itself that its client is gone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import DatabaseError
from . import lead_queries
from .failures import LOCK_NOT_AVAILABLE

#: How long the next holder of the lock waits for the present one to hand it over.
TAKE_OVER_MS = 5000

Rows = Callable[[str, Mapping[str, Any] | None], list[tuple[Any, ...]]]


class Lead(enum.Enum):
    """Who holds the leader lock."""

    OURS = "ours"
    #: A former session of ours, which has been terminated: try again in a moment.
    FORMER = "a former session of ours"
    ANOTHER = "another runner"


class Leadership:
    """The leader lock, for one session at a time. `rows` runs a statement in the current session."""

    def __init__(self, rows: Rows, mark: int) -> None:
        self._rows = rows
        self._mark = {"mark": mark}
        #: Server processes that carried our mark. One that is ending may have released the mark but not yet the lock.
        self._former: set[int] = set()
        self._has_looked = False
        self._listens = False
        #: Whether the current session holds the leader lock.
        self.leads = False

    @property
    def former(self) -> list[int]:
        """Server processes of former sessions that have been terminated."""
        return sorted(self._former)

    def begin(self) -> None:
        """Note that the session is a new one, which was marked on connecting."""
        self._has_looked = self._listens = self.leads = False

    def try_lead(self) -> Lead:
        """Try to take the lock; the session keeps it until it ends or `let_go` is called. Raises DatabaseError.

        If another runner holds it, the session is notified when that one releases it (Notified.let_go). Former sessions
        of ours are looked for once per session, because none can acquire the lock later.
        """
        if self.leads or self._try():
            return self._ours()
        if self._has_looked and not self._former:
            return Lead.ANOTHER
        if not self._listens:
            # Listen before the last try, so that a later release is not missed.
            self._rows(lead_queries.STAND_BY, None)
            self._listens = True
        self._has_looked = True
        found = self._rows(lead_queries.END_FORMER, self._mark)
        self._former |= {pid for pid, _leads, is_former in found if is_former}
        leaders = {pid for pid, leads, _is_former in found if leads}
        if leaders & self._former:
            return Lead.FORMER
        # The holder may be gone by now.
        if self._try():
            return self._ours()
        if self._former and not leaders:
            return Lead.FORMER
        self._former.clear()
        return Lead.ANOTHER

    def _ours(self) -> Lead:
        self._former.clear()
        self.leads = True
        return Lead.OURS

    def let_go(self) -> None:
        """Release the lock, if we hold it, and notify standbys. Raises DatabaseError."""
        if self.leads:
            self.leads = False
            self._rows(lead_queries.LET_GO, None)

    def hand_over(self) -> bool:
        """Give the lock to a session of ours that waits for it; False: none does yet. Raises DatabaseError."""
        if not self._rows(lead_queries.HAND_OVER, self._mark):
            return False
        self.leads = False
        return True

    def take_over(self) -> None:
        """Wait for the lock, which a session of ours is about to hand over; `try_lead` follows. Raises DatabaseError.

        At most TAKE_OVER_MS: then a holder that did not respond is treated like a former session.
        """
        try:
            self._rows(lead_queries.WAIT_TO_LEAD.format(wait_ms=TAKE_OVER_MS), None)
        except DatabaseError as error:
            if error.sqlstate != LOCK_NOT_AVAILABLE:
                raise

    def _try(self) -> bool:
        return bool(self._rows(lead_queries.TRY_LEAD, None)[0][0])
