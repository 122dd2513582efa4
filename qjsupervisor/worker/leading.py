"""Connects and acquires the leader lock of the database.

While another runner leads, the worker is a standby. It tries the lock at intervals (waiting for it inside PostgreSQL
would keep a snapshot open, perhaps for days), and at once when a runner announces that it released the lock.
"""

from __future__ import annotations

import math

from ..postgres import lead_queries
from ..postgres.leadership import Lead
from ..states import Phase
from .comeback import AWAY_S, Comeback
from .parts import WorkerParts
from .progress import Progress
from .reporting import Loss

#: Interval for trying the leader lock while another runner has it; a planned release is announced.
STANDBY_S = 5.0
#: Shortest interval, however often a release is announced.
STANDBY_AGAIN_S = 0.05
#: Interval while a former session of ours, already told to end, still holds it.
FORMER_S = 0.25
#: From when on that session is named: after an outage many databases have one for a moment.
FORMER_TOLD_S = 5.0


class Leading:
    """One worker's connection and leader lock. Methods raise DatabaseError if they cannot succeed now."""

    def __init__(self, parts: WorkerParts, progress: Progress, comeback: Comeback) -> None:
        self._parts = parts
        self._progress = progress
        self._comeback = comeback
        #: When the leader lock was last tried, in standby.
        self._tried_s = -math.inf
        #: Since when a former session of ours has it.
        self._former_since_s = math.inf

    def connect(self, now_s: float) -> bool:
        """Connect. False: somebody else goes first, try again later."""
        database, progress = self._parts.database, self._progress
        if self._parts.outage.connect(database.connect, now_s):
            progress.enter(Phase.DISCONNECTED, "its PostgreSQL is back", Loss.OF_SERVER)
        assert database.about is not None
        was_away = self._comeback.away_s(now_s) > 0
        until_s = self._comeback.stays_away_until_s(database.about.started, now_s)
        if was_away and until_s is None:
            self._parts.reporting.tell({"is": "away", "for_s": 0})  # nobody ended it: the server was restarted
        if until_s is not None:
            database.close()
            progress.enter(Phase.DISCONNECTED, f"an administrator ended its session: left alone for {AWAY_S:g} s")
            progress.next_step.set(until_s)
            return False
        may_lead_s = self._comeback.may_lead_at_s(now_s)
        if may_lead_s > now_s:
            progress.enter(Phase.STANDBY, "the connection was lost: whoever led this database before goes first")
            progress.next_step.set(may_lead_s)
        return may_lead_s <= now_s

    def lead(self, now_s: float) -> bool:
        """Try to become the leader. False: try again later."""
        database, worker_slot, progress = self._parts.database, self._parts.worker_slot, self._progress
        lead = database.lead()
        if lead is Lead.ANOTHER:
            if worker_slot.is_leased and worker_slot.holds_any:
                worker_slot.hand_over()
            self._let_go(now_s)
            progress.enter(Phase.STANDBY, "another runner holds the leader lock of this database")
            self._tried_s = now_s
            progress.next_step.set(now_s + STANDBY_S)
            self.hear(now_s)  # a release that was announced since then came with the answer: the socket is silent
        elif lead is Lead.FORMER:
            # Its jobs are ours and still count.
            self._former_since_s = min(self._former_since_s, now_s)
            reason = "waits for a former session of ours to end"
            if now_s >= self._former_since_s + FORMER_TOLD_S:
                reason += f" (server process {', '.join(str(pid) for pid in database.leadership.former)})"
            progress.enter(Phase.DISCONNECTED, reason)
            progress.next_step.set(now_s + FORMER_S)
        if lead is not Lead.FORMER:
            self._former_since_s = math.inf
        return lead is Lead.OURS

    def begin_tenure(self) -> int | None:
        """In a cluster: the number of this tenure, larger than any former one. Otherwise None, without a statement."""
        if not self._parts.worker_slot.is_leased:
            return None
        self._parts.worker_slot.take_back()
        return int(self._parts.database.rows(lead_queries.TENURE)[0][0])

    def hear(self, now_s: float) -> None:
        """Notifications arrived. In standby: try the lock if the leader released it."""
        notified = self._parts.database.notified
        if self._progress.phase is Phase.STANDBY and notified.let_go:
            notified.let_go = False
            self._progress.next_step.set(max(now_s, self._tried_s + STANDBY_AGAIN_S))

    def _let_go(self, now_s: float) -> None:
        """Release all permits: another runner leads."""
        if not self._progress.holds_unread:
            return
        self._progress.note_read()
        if self._parts.worker_slot.starts_known:
            self._parts.worker_slot.forget_starts()  # the other runner starts jobs too
        if self._parts.serving is not None:
            self._parts.serving.offline.let_go(now_s)
        else:
            self._parts.worker_slot.let_go()
