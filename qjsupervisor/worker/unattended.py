"""Jobs that hold a permit without a request of ours, and which of them are dead: the contract's rule.

They are asked about only while there are any. A job whose request is open is none of them: that one may be slow, but
it was not forgotten.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from ..backlog.backlog import Backlog
from ..job import Job
from ..odoo.dispatcher import Dispatcher
from ..postgres.database import Database

#: Contract: never shorter.
DEAD_AFTER_S = 10.0
#: A job has to look dead twice, this far apart: `started` is committed a moment before its lock row is locked. One
#: whose row does not say since when, for DEAD_AFTER_S.
DEAD_AGAIN_S = 1.0
#: How often they are looked at.
DEAD_CHECK_S = 2.0


class Orphans:
    """The jobs of one database that nobody here waits for."""

    def __init__(self, database: Database, dispatcher: Dispatcher, log: FilteringBoundLogger) -> None:
        self._database = database
        self._dispatcher = dispatcher
        self._log = log
        #: When each first looked dead (0: not yet), by job id.
        self._dead_since_s: dict[int, float] = {}
        self._due_s = 0.0

    def add(self, job_id: int) -> None:
        """A job holds a permit. Whether a request of ours is open for it is seen when they are looked at."""
        self._dead_since_s.setdefault(job_id, 0.0)

    def discard(self, job_id: int) -> None:
        """A job does not hold a permit any more."""
        self._dead_since_s.pop(job_id, None)

    def clear(self) -> None:
        """Nothing is known any more."""
        self._dead_since_s.clear()

    @property
    def due_s(self) -> float | None:
        """When they are to be looked at; None: there are none."""
        return self._due_s if self._dead_since_s else None

    def is_due(self, now_s: float) -> bool:
        """Whether it is time to look at them."""
        return bool(self._dead_since_s) and now_s >= self._due_s

    def revive(self, backlog: Backlog, now_s: float) -> list[Job]:
        """Look, and put back those that are dead; these, as they are now. Raises DatabaseError."""
        since_s = self._dead_since_s
        self._due_s = now_s + DEAD_CHECK_S
        for job_id in [j for j in since_s if self._dispatcher.is_open(j) or not backlog.is_held(j)]:
            del since_s[job_id]
        dead = self._database.look_dead(since_s, DEAD_AFTER_S) if since_s else {}
        for job_id in since_s:
            if job_id not in dead:
                since_s[job_id] = 0.0
            elif not since_s[job_id]:
                since_s[job_id] = now_s
                self._due_s = now_s + DEAD_AGAIN_S
        for_s = {True: DEAD_AGAIN_S * 0.9, False: DEAD_AFTER_S}
        certain = {j: state for j, (state, dated) in dead.items() if now_s - since_s[j] >= for_s[dated]}
        revived = self._database.revive(certain, DEAD_AFTER_S) if certain else []
        for job in revived:
            self._log.warning("job_found_dead", job_uuid=job.uuid, channel=job.channel, state=job.state)
        return revived
