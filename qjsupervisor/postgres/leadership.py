"""Becoming the one runner of a database: the contract's leader lock, and what is left of our own former sessions.

A session of ours carries our mark (an advisory lock that it shares) from its first statement on. Where the leader lock
is taken, one look at pg_locks tells whether by a marked session. Such a session is ended, and waited for: the server
may need seconds to end it, or for ever to notice by itself that its client is gone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from . import queries

Rows = Callable[[str, Mapping[str, Any] | None], list[tuple[Any, ...]]]


class Lead(enum.Enum):
    """Who has the leader lock."""

    OURS = "ours"
    #: A former session of ours, which was told to end: try again in a moment.
    FORMER = "a former session of ours"
    ANOTHER = "another runner"


class Leadership:
    """The leader lock, as one session at a time tries it. `rows` runs a statement in the session that there is."""

    def __init__(self, rows: Rows, mark: int) -> None:
        self._rows = rows
        self._mark = {"mark": mark}
        #: Server processes that carried our mark. One that is just ending may have lost it, and not yet the lock.
        self._former: set[int] = set()
        self._has_looked = False
        self._listens = False
        #: The lock is ours.
        self.leads = False

    @property
    def former(self) -> list[int]:
        """Server processes of former sessions that were told to end."""
        return sorted(self._former)

    def begin(self) -> None:
        """A new session: mark it."""
        self._has_looked = self._listens = self.leads = False
        self._rows(queries.MARK, self._mark)

    def try_lead(self) -> Lead:
        """Try to get the lock; the session keeps it until it ends, or `let_go`. Raises DatabaseError.

        Where another runner has it, the session hears from now on when that lets it go (Notified.let_go).
        Former sessions of ours are looked for once a session, since nobody else can have got the lock for them later.
        """
        if self._try():
            return self._ours()
        if self._has_looked and not self._former:
            return Lead.ANOTHER
        if not self._listens:
            # Before the last try: whoever lets it go later is heard.
            self._rows(queries.STAND_BY, None)
            self._listens = True
        self._has_looked = True
        found = self._rows(queries.END_FORMER, self._mark)
        self._former |= {pid for pid, _leads, is_former in found if is_former}
        leaders = {pid for pid, leads, _is_former in found if leads}
        if leaders & self._former:
            return Lead.FORMER
        # Whoever had it may be gone by now.
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
        """Let the database go, and say so, if it is ours. Raises DatabaseError."""
        if self.leads:
            self.leads = False
            self._rows(queries.LET_GO, None)

    def _try(self) -> bool:
        return bool(self._rows(queries.TRY_LEAD, None)[0][0])
