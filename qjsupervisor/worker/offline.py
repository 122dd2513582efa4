"""Permits while the database cannot be queried: requests continue, and permits are returned where that is certain.

Reads and writes no row; rows are examined when the database is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..odoo.dispatcher import Dispatcher
from .jobs import State
from .late_claims import LateClaims
from .outcomes import RequestOutcomes
from .permits import Permits
from .rows import Rows


class Offline:
    """One worker's permits while it does not serve. `note_ended` moves jobs whose requests ended."""

    def __init__(
        self,
        rows: Rows,
        permits: Permits,
        dispatcher: Dispatcher,
        outcomes: RequestOutcomes,
        late_claims: LateClaims,
        note_ended: Callable[[], None],
    ) -> None:
        self._rows = rows
        self._permits = permits
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._late_claims = late_claims
        self._note_ended = note_ended

    def lost(self, now_s: float) -> None:
        """The connection is lost: undo what was decided but not yet claimed; open requests continue."""
        self.drop_taken()
        self._late_claims.lost()
        self._permits.exchange(self._rows.backlog, now_s, start=False)

    def drop_taken(self) -> None:
        """Do not claim jobs that were given a permit but are not claimed yet."""
        backlog = self._rows.backlog
        for job_id in backlog.taken:
            backlog.forget(job_id)
        backlog.taken = []

    def settle_unread(self, now_s: float, *, gave_up: bool) -> None:
        """The database cannot be queried: return the permits of jobs for which Odoo reported success.

        After any other answer, or none, the row may say anything: a job that lost its PostgreSQL ends with a 500 and
        its row stays `started`, which counts unless it is given up (`gave_up`). A claim whose answer is late was never
        sent.
        """
        self._outcomes.look()
        if self._late_claims.due.is_due:
            self._late_claims.release()
        if self._dispatcher.ended:
            self._note_ended()
            for record in self._rows.jobs.all_in(State.ENDED):
                if gave_up or (record.ended is not None and record.ended.outcome.status == 200):
                    self._rows.backlog.forget(record.permit)
            self._permits.exchange(self._rows.backlog, now_s, start=False)

    def give_up(self, now_s: float) -> int:
        """The database was unreadable for too long: count only open requests. Returns how many jobs do not count."""
        requested = self._rows.jobs.all_in(State.REQUESTED)
        given_up = self._rows.backlog.holding().difference(record.permit for record in requested)
        self._let_go_of(given_up, now_s)
        return len(given_up)

    def let_go(self, now_s: float) -> None:
        """Release all permits: another runner leads."""
        self._let_go_of(self._rows.backlog.holding(), now_s)

    def _let_go_of(self, job_ids: Iterable[int], now_s: float) -> None:
        for job_id in job_ids:
            self._rows.backlog.forget(job_id)
        for state in (State.UNATTENDED, State.CLAIMING):
            for record in self._rows.jobs.all_in(state):
                self._rows.jobs.wait(record)
        self.lost(now_s)
